"""Checkpoints that lie, by damage or by malice: one line that names the file, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from entrypoint.checkpoint.safetensors_header import HeaderTensor, parse_header, read_header
from tests.paths import TOP
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=512, context=256)
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00004.safetensors"
SECOND = "model-00002-of-00004.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    make_checkpoint(folder, SHAPE, shard_bytes=100_000)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def with_header(path: Path, header: bytes, data: bytes | None = None) -> None:
    old = path.read_bytes()
    (length,) = struct.unpack("<Q", old[:8])
    path.write_bytes(struct.pack("<Q", len(header)) + header + (old[8 + length :] if data is None else data))


def header_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found: dict[str, Any] = json.loads(file.read(length))
    return found


def edit_header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        header = header_of(folder / FIRST)
        change(header)
        with_header(folder / FIRST, json.dumps(header).encode())

    return edit


def first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(value for key, value in header.items() if key != "__metadata__")
    return entry


def last(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = max((v for k, v in header.items() if k != "__metadata__"), key=lambda v: v["data_offsets"])
    return entry


def hole(folder: Path) -> None:
    """One tensor less, its data still there."""
    header = header_of(folder / FIRST)
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    del header[sorted(spans, key=lambda name: spans[name])[-2]]
    with_header(folder / FIRST, json.dumps(header).encode())


def twice(folder: Path) -> None:
    header = json.dumps(header_of(folder / FIRST))
    name = next(name for name in header_of(folder / FIRST) if name != "__metadata__")
    entry = json.dumps({name: first(header_of(folder / FIRST))})[1:-1]
    with_header(folder / FIRST, (header[:-1] + ", " + entry + "}").encode())


def edit_index(change: Callable[[dict[str, str]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return edit


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return edit


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def in_two_shards(folder: Path) -> None:
    """The second shard again, under the first one's name: every tensor of it is there twice."""
    shutil.copyfile(folder / SECOND, folder / FIRST)


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


LONG_HEADER = struct.pack("<Q", 100_000_000)
BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "past the end",
        edit_header(lambda h: last(h).update(data_offsets=[0, 10**9], shape=[5 * 10**8])),
        "truncated: it should have 1,000",
    ),
    ("a hole", hole, "bytes of data belong to no tensor"),
    (
        "data behind",
        lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes() + b"1234"),
        "4 bytes of data belong to no tensor",
    ),
    ("data before", edit_header(lambda h: first(h).update(shape=[0], data_offsets=[0, 0])), "belong to no tensor"),
    (
        "100 MB of header",
        lambda f: sparse(f / FIRST, 10**9, LONG_HEADER),
        "header would be 100,000,000 bytes, at most 10",
    ),
    ("length 2**64", lambda f: sparse(f / FIRST, 10**9, b"\xff" * 8), "not a whole safetensors file"),
    ("deep", lambda f: with_header(f / FIRST, b"[" * 10**6), "its header is not JSON"),
    ("no UTF-8", lambda f: with_header(f / FIRST, b'{"\xff": 1}'), "its header is not JSON"),
    (
        "digits",
        lambda f: with_header(f / FIRST, b'{"a": {"dtype": "F32", "shape": [' + b"9" * 9999 + b"]}}"),
        "not JSON",
    ),
    (
        "dtype",
        edit_header(lambda h: first(h).update(dtype="F4_E2M1")),
        "embed_tokens.weight' has the unknown dtype 'F4_E2M1'",
    ),
    ("dtype a list", edit_header(lambda h: first(h).update(dtype=[])), r"has the unknown dtype '\[\]'"),
    ("FP8", edit_header(lambda h: first(h).update(dtype="F8_E4M3", shape=[65536])), "has shape|stored as F8_E4M3"),
    ("negative", edit_header(lambda h: first(h).update(data_offsets=[-65536, 0])), "don't agree"),
    ("negative shape", edit_header(lambda h: first(h).update(shape=[-1, -32768])), "don't agree"),
    ("huge shape", edit_header(lambda h: first(h).update(shape=[2**62, 2**62])), "don't agree"),
    ("many dimensions", edit_header(lambda h: first(h).update(shape=[10**9] * 50_000)), "don't agree"),
    ("fractions", edit_header(lambda h: first(h).update(shape=[512.0, 64.0])), "don't agree"),
    ("NaN", edit_header(lambda h: first(h).update(shape=[float("nan")])), "don't agree"),
    ("truth", edit_header(lambda h: first(h).update(shape=[True, 32768])), "don't agree"),
    (
        "three offsets",
        edit_header(lambda h: first(h).update(data_offsets=[0, 1, 2])),
        "an invalid header entry",
    ),
    ("no entry", edit_header(lambda h: h.update(model=None)), "'model' has an invalid header entry"),
    ("twice", twice, "its header has 'model.embed_tokens.weight' twice"),
    ("empty file", replaced(FIRST, Path.touch), r"not a whole safetensors file \(0 bytes\)"),
    ("a folder", replaced(FIRST, Path.mkdir), rf"{FIRST} is missing, but {INDEX} names it"),
    ("a pipe", replaced(FIRST, os.mkfifo), rf"{FIRST} is missing, but {INDEX} names it"),
    ("a loop", replaced(FIRST, loop), rf"{FIRST} is missing, but {INDEX} names it"),
    ("config a pipe", replaced("config.json", os.mkfifo), "config.json is not a regular file"),
    ("config a folder", replaced("config.json", Path.mkdir), "config.json can't be read: Is a directory"),
    ("config a loop", replaced("config.json", loop), "config.json can't be read: Too many levels"),
    (
        "config a device",
        replaced("config.json", lambda p: p.symlink_to("/dev/zero")),
        "config.json is not a regular file",
    ),
    (
        "config large",
        lambda f: sparse(f / "config.json", 10_000_001),
        "config.json is 10,000,001 bytes, larger than any published",
    ),
    ("config deep", lambda f: (f / "config.json").write_text('{"a": ' * 10_000 + "1" + "}" * 10_000), "is not JSON"),
    ("config no UTF-8", lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"), "config.json is not JSON"),
    ("config empty", lambda f: (f / "config.json").write_bytes(b""), "config.json is not JSON"),
    ("layers 2**63", edit_config(num_hidden_layers=2**63), "num_hidden_layers is 9223372036854775808; a whole number"),
    ("layers NaN", edit_config(num_hidden_layers=float("nan")), "num_hidden_layers is nan; a whole number"),
    ("layers -1", edit_config(num_hidden_layers=-1), "num_hidden_layers is -1; a whole number"),
    ("layers text", edit_config(num_hidden_layers="9" * 10**6), "num_hidden_layers is '999"),
    ("type a list", edit_config(model_type=["glm4"] * 10**5), r"model_type is \['glm4'"),
    ("index a pipe", replaced(INDEX, os.mkfifo), "index.json is not a regular file"),
    ("index a loop", replaced(INDEX, loop), "index.json can't be read: Too many levels"),
    (
        "index large",
        lambda f: sparse(f / INDEX, 10_000_001),
        "index.json is 10,000,001 bytes, larger than any published",
    ),
    ("no names", lambda f: (f / INDEX).write_text('{"weight_map": {}}'), "weight_map must name a file"),
    ("outside", edit_index(lambda m: m.update(a="../other.safetensors")), r"'../other.safetensors' is not a file name"),
    ("absolute", edit_index(lambda m: m.update(a="/etc/passwd")), "'/etc/passwd' is not a file name"),
    ("no name", edit_index(lambda m: m.update(a="")), "'' is not a file name"),
    ("dots", edit_index(lambda m: m.update(a="..")), "'..' is not a file name"),
    ("a NUL", edit_index(lambda m: m.update(a="x\0y")), "is not a file name"),
    ("a name too long", edit_index(lambda m: m.update(a="x" * 300)), "x is missing, but model.safetensors.index"),
    ("missing shard", edit_index(lambda m: m.update(a="model-9.safetensors")), "model-9.safetensors is missing"),
    (
        "another shard",
        edit_index(lambda m: m.update({"model.embed_tokens.weight": SECOND})),
        rf"'model.embed_tokens.weight' is in {FIRST}, not in {SECOND}",
    ),
    ("in two shards", in_two_shards, rf"is in {FIRST} and in {SECOND}; copy"),
]


@pytest.mark.parametrize(("damage", "says"), [pytest.param(d, s, id=i) for i, d, s in BROKEN])
def test_a_lie_is_one_line_that_names_its_file(copy: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(copy)
    line = str(caught.value)
    assert "\n" not in line
    assert str(copy) in line
    assert len(line) < 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(copy: Path) -> None:
    (copy / FIRST).chmod(0)
    with pytest.raises(CheckpointError, match=f"{FIRST} can't be read: Permission denied"):
        read_checkpoint(copy)


BOUNDED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (40, 40))
from entrypoint.checkpoint.safetensors_header import CheckpointError, read_header
try:
    read_header(Path(sys.argv[1]))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            b'{"":0' + b"".join(b',"%x":0' % n for n in range(900_000)) + b"}",
            "'' has an invalid header entry",
        ),
        (b'{"":' + b"[" * 9_000_000, "its header is not JSON"),
        (b'{"a":{"shape":[' + b"1," * 4_500_000 + b"1]}}", "'a' has an invalid header entry"),
        (b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":[' + b"1," * 4_500_000 + b"1]}}", "don't agree"),
        (b'{"a":1' + b',"a":1' * 1_500_000 + b"}", "has 'a' twice"),
    ],
    ids=["many tensors", "deep", "long shape", "many dimensions", "twice"],
)
def test_the_longest_header_is_read_within_bounds(tmp_path: Path, header: bytes, says: str) -> None:
    """What limits memory and processor time is the kernel, so that a breach is a failure and not a slow machine."""
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    command = [sys.executable, "-c", BOUNDED, str(tmp_path / "m.safetensors")]
    run = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr[-500:]
    assert says in run.stdout


HEADER = (
    b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    b'"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"U8","shape":[],"data_offsets":[32,33]}}'
)
SIZE = 8 + len(HEADER) + 33


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), max_size=4))
@example([])
def test_flipped_bytes_give_an_error_or_tensors_within_the_file(flips: list[tuple[int, int]]) -> None:
    header = bytearray(HEADER)
    for place, value in flips:
        header[place] = value
    try:
        found = parse_header("m", bytes(header), SIZE)
    except CheckpointError as error:
        assert str(error).startswith("m: ")
        assert "\n" not in str(error)
        assert flips
    else:
        assert sum(tensor.bytes for tensor in found.values()) == SIZE - 8 - len(header)
        assert all(isinstance(tensor, HeaderTensor) and min((0, *tensor.shape)) == 0 for tensor in found.values())


def test_fp8_and_every_integer_are_known(tmp_path: Path) -> None:
    widths = {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "U32": 4, "U64": 8, "F64": 8, "BOOL": 1}
    header, end = {}, 0
    for dtype, width in widths.items():
        header[dtype] = {"dtype": dtype, "shape": [3], "data_offsets": [end, end + 3 * width]}
        end += 3 * width
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    found = read_header(tmp_path / "m.safetensors")
    assert {name: tensor.bytes for name, tensor in found.items()} == {name: 3 * width for name, width in widths.items()}
