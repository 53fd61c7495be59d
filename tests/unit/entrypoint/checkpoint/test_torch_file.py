from __future__ import annotations

import collections
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from entrypoint.checkpoint.torch_file import read_torch_file
from tests.processes.engine import TINY
from tests.processes.service import TOP, clean_environment
from tests.torch_checkpoints import as_torch_files
from tools.checkpoints.make_checkpoint import make_checkpoint

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
}


def saved(path: Path, value: Any, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


def test_the_same_as_torchs_own_meta_load(tmp_path: Path) -> None:
    weight = torch.arange(60, dtype=torch.float32).reshape(6, 10)
    state: Any = collections.OrderedDict(
        plain=weight.clone(),
        view=weight[2:4],
        other_view=weight[4:],
        transposed=weight.clone().T,
        parameter=torch.nn.Parameter(weight.clone()),
        scalar=torch.tensor(3.0),
        empty=torch.empty(0, 5),
    )
    state |= {f"as {dtype}": torch.zeros(3, 5, dtype=dtype) for dtype in DTYPES}
    module = torch.nn.Linear(3, 4)
    state |= module.state_dict()
    state._metadata = module.state_dict()._metadata
    path = saved(tmp_path / "pytorch_model.bin", state)
    expected = torch.load(path, map_location="meta", weights_only=True)
    found = read_torch_file(path)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].shape, found[name].dtype) == (tuple(tensor.shape), DTYPES[tensor.dtype])


def test_shared_bytes_are_counted_once(tmp_path: Path) -> None:
    weight = torch.zeros(8, 4)
    path = saved(tmp_path / "m.bin", {"a": weight, "b": weight, "c": weight[:2], "d": torch.zeros(2)})
    found = read_torch_file(path)
    assert [found[name].bytes for name in "abcd"] == [128, 0, 0, 8]
    part = read_torch_file(saved(tmp_path / "n.bin", {"a": weight[:2], "b": weight[2:4]}))
    assert [tensor.bytes for tensor in part.values()] == [32, 32], "what no tensor reaches is not loaded"


def test_a_sharded_checkpoint_is_planned_like_its_original(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "original", TINY, shard_bytes=500_000)
    copy = as_torch_files(tmp_path / "original", tmp_path / "copy")
    original, ours = read_checkpoint(tmp_path / "original"), read_checkpoint(copy)
    assert len(list(copy.glob("*.bin"))) > 1
    assert ours.shape == original.shape
    assert (ours.parameters, ours.stored_bytes, ours.stored_dtype) == (
        original.parameters,
        original.stored_bytes,
        original.stored_dtype,
    )
    shapes = {name: tensor.shape for name, tensor in original.tensors.items()}
    assert {name: tensor.shape for name, tensor in ours.tensors.items()} == shapes


def test_safetensors_are_taken_where_both_kinds_are_there(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", TINY)
    (tmp_path / "c" / "pytorch_model.bin").write_bytes(b"never read")
    files = {tensor.file for tensor in read_checkpoint(tmp_path / "c").tensors.values()}
    assert files == {"model.safetensors"}


class Payload:
    """What a pickle can do on its own."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self._mark}",)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], how: int = zipfile.ZIP_STORED) -> Path:
    """The same zip with other entries; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in entries:
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)
    return path


def with_pickle(path: Path, pickled: bytes) -> Path:
    return rewritten(path, lambda name, data: pickled if name.endswith("data.pkl") else data)


def good(path: Path) -> Path:
    return saved(path, {"a": torch.zeros(4, 4), "b": torch.ones(3)})


def cut(path: Path) -> Path:
    good(path).write_bytes(good(path).read_bytes()[:-40])
    return path


def deep(path: Path) -> Path:
    """A tuple a million deep as the name of a tensor: hashing it would end the process."""
    return with_pickle(good(path), b"\x80\x02}N" + b"\x85" * 10**6 + b"Ns.")


BROKEN: list[tuple[str, Callable[[Path], Path], str]] = [
    (
        "before 1.6",
        lambda p: saved(p, {"a": torch.zeros(2)}, _use_new_zipfile_serialization=False),
        "since torch 1.6; use",
    ),
    ("os.system", lambda p: saved(p, {"a": Payload(p.parent / "mark")}), r"calls posix\.system"),
    ("protocol 4", lambda p: with_pickle(good(p), pickle.dumps(Payload(p.parent / "mark"), 4)), "the instruction"),
    (
        "protocol 0",
        lambda p: with_pickle(good(p), pickle.dumps(Payload(p.parent / "mark"), 0)),
        "the instruction|calls",
    ),
    ("a global", lambda p: saved(p, {"a": os.system}), "contains 'a', which is not a tensor"),
    ("a class", lambda p: saved(p, {"a": Path("x")}), "calls pathlib"),
    ("a number", lambda p: saved(p, {"a": torch.zeros(2), "epoch": 3}), "contains 'epoch', which is not a tensor"),
    (
        "nested",
        lambda p: saved(p, {"state_dict": {"a": torch.zeros(2)}}),
        "contains 'state_dict', which is not a tensor",
    ),
    ("a list", lambda p: saved(p, [torch.zeros(2)]), "does not contain a dictionary of tensors"),
    (
        "complex",
        lambda p: saved(p, {"a": torch.zeros(2, dtype=torch.complex64)}),
        "unknown storage, torch.ComplexFloatStorage",
    ),
    ("sparse", lambda p: saved(p, {"a": torch.zeros(2, 2).to_sparse()}), "calls"),
    ("empty", lambda p: (p.touch(), p)[1], "not in the zip format"),
    ("cut", cut, "truncated or damaged"),
    ("deep", deep, "keys are not strings"),
    ("no end", lambda p: with_pickle(good(p), b"\x80\x02}"), "damaged|no end"),
    ("noise", lambda p: with_pickle(good(p), b"\x80\x02\xff\xff"), "damaged"),
    ("underflow", lambda p: with_pickle(good(p), b"\x80\x02\x86."), "damaged"),
    ("no pickle", lambda p: rewritten(good(p), lambda n, d: None if "pkl" in n else d), "not a file of torch.save"),
    (
        "no storage",
        lambda p: rewritten(good(p), lambda n, d: None if "data/0" in n else d),
        "64 bytes, which is missing",
    ),
    ("storage", lambda p: rewritten(good(p), lambda n, d: d[:-4] if "data/0" in n else d), "which has 60"),
    ("compressed", lambda p: rewritten(good(p), lambda n, d: d, zipfile.ZIP_DEFLATED), "is compressed"),
    ("a large pickle", lambda p: with_pickle(good(p), b"N" * 16_000_001), "its data.pkl is 16,000,001 bytes"),
    ("many", lambda p: with_pickle(good(p), b"\x80\x02" + b"N" * 4_000_001), "more instructions"),
]


@pytest.mark.parametrize(("make", "says"), [pytest.param(m, s, id=i) for i, m, s in BROKEN])
def test_what_is_not_a_dictionary_of_tensors_is_refused_and_runs_nothing(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    path = make(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=says) as caught:
        read_torch_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mark").exists()


def test_a_view_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.bin", {"a": torch.zeros(1000)})
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        pickled = archive.read(name)
    shape = b"M" + struct.pack("<H", 1000) + b"\x85"
    assert pickled.count(shape) == 1
    with_pickle(path, pickled.replace(shape, b"M" + struct.pack("<H", 1001) + b"\x85"))
    with pytest.raises(CheckpointError, match="exceeds its storage"):
        read_torch_file(path)


def test_a_directory_as_large_as_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    with path.open("wb") as file:
        file.truncate(3 << 30)
        file.seek(0)
        file.write(b"PK\x03\x04")
        file.seek(0, 2)
        start = (3 << 30) - (1 << 31)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 1 << 31, start, 0))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_torch_file(path)


@settings(max_examples=150, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_is_an_error_or_tensors_within_the_file(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    path = good(tmp_path_factory.getbasetemp() / "flipped.bin")
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        found = read_torch_file(path)
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert sum(tensor.bytes for tensor in found.values()) <= len(data)


def test_the_plan_command_reads_it_without_torch(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "original", TINY, shard_bytes=500_000)
    copy = as_torch_files(tmp_path / "original", tmp_path / "copy")
    code = (
        "import sys; from entrypoint.__main__ import main; code = main(['plan', '--json']); "
        "sys.exit(code or 'torch' in sys.modules or 'numpy' in sys.modules)"
    )
    environment = clean_environment(GLM_MODEL=str(copy), GLM_STATE_DIR=str(tmp_path / "state"), PYTHONPATH=str(TOP))
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    plan = json.loads(run.stdout)
    assert (plan["model"]["stored_dtype"], plan["chosen"] is not None) == ("F32", True)
