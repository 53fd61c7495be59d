"""Checkpoints of any size whose weights are holes in a file: true headers, nothing stored."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.layouts.registry import LAYOUTS, layout_of, shape_of
from app.layouts.shape import Shape, StoredTensor
from app.layouts.skeleton import stored_tensors

GLM4_9B = Shape(
    layers=40,
    hidden=4096,
    heads=32,
    kv_heads=2,
    head_dim=128,
    intermediate=13696,
    vocab=151552,
    context=32768,
    attention_bias=True,
    tied=False,
)
CHATGLM3_6B = Shape(
    layers=28,
    hidden=4096,
    heads=32,
    kv_heads=2,
    head_dim=128,
    intermediate=13696,
    vocab=65024,
    context=8192,
    attention_bias=True,
    tied=False,
)
SENTENCEPIECE_START = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02"


def config_for(shape: Shape, model_type: str) -> dict[str, object]:
    """A parsed config.json in the fields of its layout."""
    layout = LAYOUTS[model_type]
    sizes = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "attention_bias": shape.attention_bias,
        "tie_word_embeddings": shape.tied,
    }
    config = {"model_type": model_type} | {layout.fields.get(name, name): value for name, value in sizes.items()}
    return config | ({"multi_query_attention": True} if model_type == "chatglm" else {})


def sparse_checkpoint(folder: Path, shape: Shape = GLM4_9B, model_type: str = "glm4") -> Path:
    """Writes config.json and one safetensors file in bf16."""
    folder.mkdir(parents=True)
    layout = LAYOUTS[model_type]
    if model_type == "chatglm":
        (folder / "tokenizer.model").write_bytes(SENTENCEPIECE_START)
    (folder / "config.json").write_text(json.dumps(config_for(shape, model_type)), encoding="utf-8")
    _write(folder / "model.safetensors", stored_tensors(layout, shape))
    return folder


def sharded_checkpoint(folder: Path, config: Mapping[str, object], shards: int) -> Path:
    """Writes a checkpoint of any config in bf16 and so many safetensors files, with an index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = stored_tensors(layout_of(config), shape_of(config))
    each = math.ceil(len(tensors) / shards)
    files: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        here = tensors[number * each : (number + 1) * each]
        _write(folder / name, here)
        files |= {stored.name: name for stored in here}
    index = {"metadata": {"total_size": sum(2 * stored.elements for stored in tensors)}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _write(path: Path, tensors: Sequence[StoredTensor]) -> None:
    header, end = {}, 0
    for stored in tensors:
        kind, width = ("F32", 4) if stored.parts[0].parameter.full_precision else ("BF16", 2)
        begin, end = end, end + width * stored.elements
        header[stored.name] = {"dtype": kind, "shape": stored.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
