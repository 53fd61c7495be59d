"""Writes a checkpoint with random weights in the shape of any GLM that transformers knows natively, or of `chatglm`.

    python -m tools.checkpoints.make_checkpoint OUT_DIR [--like zai-org/GLM-4-9B-0414 | --model-type glm4 --layers 16]

The tensors' names and shapes come from transformers' own class on the meta device. They are written one by one,
a few megabytes at a time, so that memory does not grow with the checkpoint.
"""

import argparse
import json
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that `python tools/checkpoints/make_checkpoint.py` works too

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion

from tools.checkpoints import chatglm
from tools.checkpoints.glm_tokenizer import STOP_TOKENS, control_ids, filler_tokenizer, save_tokenizer
from tools.checkpoints.shape import CONFIG_NAMES, PUBLISHED_SHAPES, WEIGHT_DTYPES, CheckpointShape, MakeCheckpointError

SAFETENSORS_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
KEPT_FIELDS = ("model_type", "eos_token_id", "pad_token_id", "tie_word_embeddings")
BLOCK_ELEMENTS = 2**21  # drawn and written at a time: 8 MiB as float32
STD = 0.02  # GLM's initializer_range; with a final RMSNorm it keeps logits within a few units


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def data_bytes(self) -> int:
        return self.elements * self.dtype.itemsize


def make_config(shape: CheckpointShape) -> Any:
    """The transformers config of `shape`, with the stop ids of the tokenizer that is written beside it."""
    if shape.model_type not in CONFIG_MAPPING:
        known = ["chatglm", *(name for name in CONFIG_MAPPING if name.startswith("glm"))]
        raise MakeCheckpointError(f"model type {shape.model_type} is not one of {', '.join(known)}")
    ids = control_ids(shape.vocab)
    fields = {theirs: getattr(shape, ours) for ours, theirs in CONFIG_NAMES.items()}
    if "qk_rope_head_dim" in shape.extra:  # for transformers, head_dim is another name of it
        del fields["head_dim"]
    fields |= {"eos_token_id": [ids[token] for token in STOP_TOKENS], "pad_token_id": ids["<|endoftext|>"]}
    try:
        return AutoConfig.for_model(shape.model_type, **{**fields, **shape.extra})
    except Exception as error:  # transformers raises errors of any kind here, some of several lines
        raise MakeCheckpointError(f"transformers refuses this config: {' '.join(str(error).split())}") from error


def native_skeleton(config: Any, dtype: torch.dtype) -> tuple[str, list[TensorSpec]]:
    """The native class's name, and the tensors of a published checkpoint; allocates no weight."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise MakeCheckpointError(f"transformers cannot build {config.model_type}: {error}") from error
    tied = set(model._tied_weights_keys or ()) if config.tie_word_embeddings else set()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    # MoE models fuse their experts in memory; files have one tensor for each.
    stored = revert_weight_conversion(model, state)
    tensors = [TensorSpec(name, tuple(tensor.shape), tensor.dtype) for name, tensor in stored.items()]
    return type(model).__name__, tensors


def split_shards(tensors: Sequence[TensorSpec], shard_bytes: int) -> list[list[TensorSpec]]:
    """Groups tensors in order; a shard exceeds `shard_bytes` only if a single tensor does."""
    shards: list[list[TensorSpec]] = []
    room = 0
    for tensor in tensors:
        if not shards or tensor.data_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= tensor.data_bytes
    return shards


def random_blocks(tensor: TensorSpec, seed: int) -> Iterator[bytes]:
    """The tensor's bytes, a block at a time; each tensor has its own random stream, so shards do not change values."""
    norm = tensor.name.endswith(("norm.weight", "layernorm.weight"))
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{tensor.name}".encode()))
    for start in range(0, tensor.elements, BLOCK_ELEMENTS):
        values = torch.ones(min(BLOCK_ELEMENTS, tensor.elements - start))
        if not norm:
            values.normal_(0.0, STD, generator=generator)
        yield values.to(tensor.dtype).view(torch.uint8).numpy().tobytes()


def write_safetensors(path: Path, tensors: Sequence[TensorSpec], seed: int) -> None:
    """Writes one safetensors file: 8 bytes of header length, the JSON header, then the data in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.data_bytes
        kind = SAFETENSORS_DTYPES[tensor.dtype]
        header[tensor.name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data starts aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.writelines(random_blocks(tensor, seed))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def published_fields(config: Any) -> dict[str, Any]:
    """The config's own fields with their defaults, without those of every transformers config."""
    common = PreTrainedConfig().to_dict().keys() - {"transformers_version"}
    return {name: value for name, value in config.to_dict().items() if name not in common or name in KEPT_FIELDS}


def check_target(out: Path, need_bytes: int) -> None:
    """Raises MakeCheckpointError unless the folder is new or empty and its disk large enough."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise MakeCheckpointError(f"{out} is not empty: name a new folder")
        free_bytes = shutil.disk_usage(out).free
    except OSError as error:
        raise MakeCheckpointError(f"cannot write to {out}: {error.strerror}") from error
    if need_bytes > free_bytes:
        raise MakeCheckpointError(f"{out} needs {need_bytes / 2**30:.2f} GiB; {free_bytes / 2**30:.2f} GiB are free")


def make_checkpoint(out: Path, shape: CheckpointShape, *, seed: int = 0, shard_bytes: int = 2**30) -> int:
    """Writes config, generation config, tokenizer and shards of at most `shard_bytes` into the new folder `out`.

    Returns the weights' size in bytes. The same arguments give the same files on the same machine.
    """
    if shard_bytes < 1 or not 0 <= seed < 2**31:
        raise MakeCheckpointError("shard_bytes must be at least 1 and the seed between 0 and 2147483647")
    dtype = getattr(torch, shape.dtype)
    if shape.model_type == "chatglm":
        fields = chatglm.config_of(shape)
        tensors = [TensorSpec(name, size, dtype) for name, size in chatglm.tensors_of(fields)]
        check_target(out, sum(tensor.data_bytes for tensor in tensors))
        chatglm.copy_tokenizer(shape, out)
    else:
        config = make_config(shape)
        architecture, tensors = native_skeleton(config, dtype)
        check_target(out, sum(tensor.data_bytes for tensor in tensors))
        save_tokenizer(filler_tokenizer(shape.vocab), out, shape.context)
        fields = published_fields(config) | {"architectures": [architecture], "dtype": shape.dtype}
        stops = {"eos_token_id": fields["eos_token_id"], "pad_token_id": fields["pad_token_id"]}
        write_json(out / "generation_config.json", stops | {"do_sample": True, "temperature": 0.8, "top_p": 0.8})
    write_json(out / "config.json", fields)
    return write_shards(out, tensors, seed, shard_bytes)


def write_shards(out: Path, tensors: Sequence[TensorSpec], seed: int, shard_bytes: int) -> int:
    """Writes the weights, with an index if there are several files; returns their bytes."""
    total_bytes = sum(tensor.data_bytes for tensor in tensors)
    shards = split_shards(tensors, shard_bytes)
    if len(shards) == 1:
        write_safetensors(out / "model.safetensors", tensors, seed)
        return total_bytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(out / name, shard, seed)
        weight_map |= {tensor.name: name for tensor in shard}
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(out / "model.safetensors.index.json", index)
    return total_bytes


def size(text: str) -> int:
    """Bytes from text such as 500MB or 1GiB."""
    number = text.rstrip("BbGgIiKkMm")
    unit = UNITS.get(text[len(number) :].upper())
    if unit is None or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 500MB or 1GiB")
    return int(number) * unit


class OneLineErrorParser(argparse.ArgumentParser):
    """A parser whose errors are one line; the usage is in --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"make_checkpoint: {message}\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses options. Those of the shape default to None, so that they can change a published one."""
    defaults = CheckpointShape()
    parser = OneLineErrorParser(prog="make_checkpoint", description="Write a random checkpoint of a GLM shape.")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="a new or empty folder")
    parser.add_argument("--like", metavar="HUB_ID", help="start from this published checkpoint's shape")
    parser.add_argument("--shapes", type=Path, default=PUBLISHED_SHAPES, help="JSON file that --like reads")
    parser.add_argument("--model-type", help=f"as config.json names it (default {defaults.model_type})")
    for name in ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context"):
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=int, help=f"default {getattr(defaults, name)}")
    parser.add_argument("--dtype", choices=WEIGHT_DTYPES, help=f"default {defaults.dtype}")
    parser.add_argument("--tied", action="store_true", default=None, help="share embedding and lm_head")
    parser.add_argument("--no-attention-bias", dest="attention_bias", action="store_false", default=None)
    parser.add_argument("--shard-bytes", type=size, default=2**30, help="at most, such as 500MB (default 1GiB)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(arguments)
    names = (*CONFIG_NAMES, "model_type")
    sizes = {name: value for name in names if (value := getattr(options, name)) is not None}
    started = time.monotonic()
    try:
        shape = (
            CheckpointShape.published(options.like, options.shapes, **sizes)
            if options.like
            else CheckpointShape(**sizes)
        )
        total_bytes = make_checkpoint(options.out, shape, seed=options.seed, shard_bytes=options.shard_bytes)
    except MakeCheckpointError as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"make_checkpoint: writing stopped: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {total_bytes / 2**30:.3f} GiB of weights in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
