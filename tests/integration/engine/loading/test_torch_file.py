"""`.bin` checkpoints through the engine's loader: the same model as from safetensors, and as little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.config import EngineConfig
from app.contract.plan import Dtype, Precision
from app.contract.status import EngineDown
from app.engine.errors import BadCheckpoint
from app.engine.loading import load, weights
from app.engine.loading.checkpoint import open_checkpoint
from tests.families import FAMILIES, make_family
from tests.paths import FIXTURES, TOP
from tests.processes.engine import TINY, EngineProcess
from tests.torch_checkpoints import as_torch_files
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

CHATGLM3 = FIXTURES / "chatglm3-tiny"
LARGE = CheckpointShape(
    hidden=1024, layers=8, heads=16, kv_heads=2, head_dim=64, intermediate=3072, vocab=8192, context=512
)
"""190 MB in bf16."""
MIB = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def as_the_engine_runs() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load_ours(folder: Path, precision: Precision, dtype: Dtype) -> Any:
    config = EngineConfig(precision, dtype, ("cpu",), {"": "cpu"}, 128, 1, 64, 0, cpu_threads=2)
    return load.load_model(open_checkpoint(folder), config, lambda _count: None)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Originals and their `.bin` copies."""
    made = {}
    for name, shards in (("sharded", 500_000), ("single", 10**9)):
        made[name] = tmp_path_factory.mktemp(name) / "glm4"
        make_checkpoint(made[name], TINY, shard_bytes=shards)
    originals = {"chatglm": CHATGLM3, "glm4, sharded": made["sharded"], "glm4, one file": made["single"]}
    copies = tmp_path_factory.mktemp("copies")
    return {name: (folder, as_torch_files(folder, copies / name)) for name, folder in originals.items()}


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"), ("int8", "bfloat16"), ("int4", "bfloat16")],
)
@pytest.mark.parametrize("name", ["chatglm", "glm4, sharded", "glm4, one file"])
def test_the_same_logits_as_the_safetensors_original(
    pairs: dict[str, tuple[Path, Path]], name: str, precision: Precision, dtype: Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "LOAD_PIECE_ELEMENTS", 32 * 64)
    ids = torch.arange(40).unsqueeze(0)
    original, copy = (load_ours(folder, precision, dtype) for folder in pairs[name])
    assert weights.weights_bytes(copy) == weights.weights_bytes(original)
    with torch.inference_mode():
        assert torch.equal(copy(ids).logits, original(ids).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layout_at_every_quantised_rung(family: str, tmp_path: Path) -> None:
    original = make_family(tmp_path / "original", family)
    copy = as_torch_files(original, tmp_path / "copy")
    ids = torch.arange(20).unsqueeze(0)
    for precision in ("bf16", "int8", "int4"):
        models = [load_ours(folder, precision, "bfloat16") for folder in (copy, original)]  # type: ignore[arg-type]
        with torch.inference_mode():
            assert torch.equal(*(model(ids).logits for model in models))


def test_progress_counts_every_byte(pairs: dict[str, tuple[Path, Path]]) -> None:
    original, copy = (open_checkpoint(folder) for folder in pairs["chatglm"])
    assert copy.total_bytes == original.total_bytes
    assert {stored.name for stored in copy.tensors} == {stored.name for stored in original.tensors}


class Malice:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


def test_a_file_that_would_run_something_is_refused_and_leaves_no_mark(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "glm4", TINY)
    copy = as_torch_files(tmp_path / "glm4", tmp_path / "copy")
    file = copy / "pytorch_model.bin"
    torch.save(torch.load(file, weights_only=True) | {"model.norm.weight": Malice(tmp_path / "mark")}, file)
    with EngineProcess(tmp_path, copy) as engine:
        down = engine.until(EngineDown)
        assert down.cause == "bad_checkpoint"
        assert "pytorch_model.bin cannot be read: it is damaged, older than torch 1.6, or holds more" in down.message
        assert "\n" not in down.message
    assert not (tmp_path / "mark").exists()


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "glm4", TINY)
    copy = as_torch_files(tmp_path / "glm4", tmp_path / "copy")
    file = copy / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    for value, how, says in (
        (tensors, {"_use_new_zipfile_serialization": False}, "older than torch 1.6"),
        (tensors | {"epoch": 3}, {}, "more than a table of tensors"),
        ([1], {}, "more than a table of tensors"),
        ({name: tensor.double() for name, tensor in tensors.items()}, {}, "stored as torch.float64; supported: BF16"),
    ):
        torch.save(value, file, **how)
        with pytest.raises(BadCheckpoint, match=says):
            open_checkpoint(copy)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BadCheckpoint, match="damaged"):
        open_checkpoint(copy)


MEASURE = """
import gc, sys
from pathlib import Path
from app.engine.runtime import process
process.tune_allocator()
from app.engine.runtime.memory import HostMeter
from tests.integration.engine.loading.test_torch_file import load_ours
load_ours(Path(sys.argv[2]), "int8", "bfloat16")  # libraries are loaded, too
for precision in ("bf16", "int8"):
    gc.collect()
    meter = HostMeter()
    before = meter.now_bytes()
    model = load_ours(Path(sys.argv[1]), precision, "bfloat16")
    meter.stop()
    print(meter.peak_bytes() - before)
    del model
"""


def loading_peaks(folder: Path, small: Path) -> list[int]:
    """Anonymous bytes at the worst moment of a load in bf16 and in int8, in a process that held nothing before."""
    command = [sys.executable, "-c", MEASURE, str(folder), str(small)]
    found = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stderr
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
def test_loading_takes_no_more_anonymous_memory_than_from_safetensors(
    tmp_path: Path, pairs: dict[str, tuple[Path, Path]]
) -> None:
    make_checkpoint(tmp_path / "large", LARGE, shard_bytes=60_000_000)
    stored = open_checkpoint(tmp_path / "large").total_bytes
    assert stored > 180_000_000
    copy = as_torch_files(tmp_path / "large", tmp_path / "copy")
    original, small = tmp_path / "large", pairs["glm4, one file"][0]
    for ours, theirs in zip(loading_peaks(copy, small), loading_peaks(original, small), strict=True):
        assert ours < theirs + 32 * MIB, f"{ours:,} from .bin, {theirs:,} from safetensors"
        assert ours < stored + 64 * MIB
