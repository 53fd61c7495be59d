from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.layouts.skeleton import skeleton
from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=512, context=256)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    make_checkpoint(folder, SHAPE, shard_bytes=100_000)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def test_headers_tell_everything(made: Path) -> None:
    checkpoint = read_checkpoint(made)
    assert len(list(made.glob("*.safetensors"))) > 1
    assert checkpoint.layout.model_type == "glm4"
    assert (checkpoint.shape.layers, checkpoint.shape.context, checkpoint.stored_dtype) == (2, 256, "BF16")
    assert checkpoint.stored_bytes == 2 * checkpoint.parameters
    names = {parameter.name for parameter in skeleton(checkpoint.layout, checkpoint.shape)}
    assert names == set(checkpoint.tensors)


def test_a_tied_checkpoint(tmp_path: Path) -> None:
    tied = CheckpointShape(**{**SHAPE.__dict__, "tied": True})
    make_checkpoint(tmp_path / "m", tied)
    assert "lm_head.weight" not in read_checkpoint(tmp_path / "m").tensors


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))

    return edit


def shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def cut(folder: Path) -> None:
    data = shard(folder).read_bytes()
    shard(folder).write_bytes(data[:-1])


def edit_header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = shard(folder).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        shard(folder).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return edit


def first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(value for key, value in header.items() if key != "__metadata__")
    return entry


def overlap(header: dict[str, Any]) -> None:
    entries = [value for key, value in header.items() if key != "__metadata__"]
    same = next(a for a in entries[1:] if a["data_offsets"][1] > entries[0]["data_offsets"][1])
    begin = entries[0]["data_offsets"][0]
    length = same["data_offsets"][1] - same["data_offsets"][0]
    same["data_offsets"] = [begin, begin + length]


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), r"config.json is missing"),
    ("config no JSON", lambda f: (f / "config.json").write_text("{"), r"config.json is not JSON"),
    ("config a list", lambda f: (f / "config.json").write_text("[]"), r"config.json must be a JSON object"),
    ("config deep", lambda f: (f / "config.json").write_text("[" * 100000), r"config.json is not JSON"),
    ("other model", edit_config(model_type="llama"), r"model_type is 'llama'; supported: chatglm, glm, glm4"),
    ("no model type", edit_config(model_type=...), r"model_type is None"),
    ("quantised", edit_config(quantization_config={"quant_method": "awq", "bits": 4}), r"is stored as AWQ 4-bit \("),
    ("quantised by whom", edit_config(quantization_config=[4]), r"quantization_config is no object"),
    ("absurd", edit_config(num_hidden_layers=10**12), r"num_hidden_layers is 1000000000000; a whole number"),
    ("text", edit_config(hidden_size="many"), r"hidden_size is 'many'"),
    ("heads", edit_config(num_attention_heads=3), r"no multiple of num_key_value_heads"),
    ("shape", edit_config(intermediate_size=256), r"gate_up_proj.weight has shape .* config.json says"),
    ("layer missing", edit_config(num_hidden_layers=3), r"tensor model.layers.2.* is missing"),
    ("layer extra", edit_config(num_hidden_layers=1), r"tensor 'model.layers.1.* is not part of a glm4 model"),
    ("cut", cut, r"truncated: it should have [0-9,]+ bytes of data and has [0-9,]+"),
    ("empty", lambda f: shard(f).write_bytes(b""), r"not a whole safetensors file \(0 bytes\)"),
    ("length lies", lambda f: shard(f).write_bytes(b"\xff" * 100), r"not a whole safetensors file"),
    ("no header", lambda f: shard(f).write_bytes(struct.pack("<Q", 4) + b"{]{]"), r"its header is not JSON"),
    ("list header", lambda f: shard(f).write_bytes(struct.pack("<Q", 2) + b"[]"), r"not a JSON object"),
    ("dtype", edit_header(lambda h: first(h).update(dtype="Q4")), r"has the unknown dtype 'Q4'"),
    ("offsets", edit_header(lambda h: first(h).update(data_offsets=[5, 1])), r"shape and offsets that don't agree"),
    ("negative", edit_header(lambda h: first(h).update(shape=[-4])), r"don't agree"),
    ("overlap", edit_header(overlap), r"overlap"),
    ("integers", edit_header(lambda h: first(h).update(dtype="I8", shape=[2 * h_elements(h)])), r"has shape"),
    ("shard missing", lambda f: shard(f).unlink(), r"00001.* is missing, but .* names it"),
    (
        "index elsewhere",
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}'),
        r"'../x' is not a file name",
    ),
    ("index", lambda f: (f / "model.safetensors.index.json").write_text("{}"), r"weight_map must name a file"),
]


def h_elements(header: dict[str, Any]) -> int:
    count = 1
    for size in first(header)["shape"]:
        count *= size
    return count


@pytest.mark.parametrize(("damage", "says"), [pytest.param(d, s, id=i) for i, d, s in BROKEN])
def test_damage_is_named_in_one_line(copy: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


def test_a_folder_without_weights_says_what_it_should_hold(copy: Path) -> None:
    for path in copy.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"has none of model\.safetensors\.index\.json, .*pytorch_model\.bin;"):
        read_checkpoint(copy)
