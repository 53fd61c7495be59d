"""What a starting engine imports: what Berth never uses took half of the time from start to ready."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.contract.status import EngineDown, Ready
from app.contract.wire import Finished
from tests.families import make_family
from tests.processes.engine import EngineProcess, last_of, make_tiny
from tests.processes.service import TOP

IMPORTED = re.compile(r"^import time:[\d |]+(\S+)$", re.MULTILINE)
UNUSED = {"sympy", "torch._dynamo.convert_frame", "torch._inductor", "torch.distributed.tensor", "bitsandbytes"}


@pytest.mark.parametrize("family", ["chatglm3", "glm-4-9b-chat", "glm tied", "glm4", "glm4_moe", "glm4_moe_lite"])
def test_an_engine_answers_without_the_compiler(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_family(tmp_path / "checkpoint", family)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with EngineProcess(tmp_path, tmp_path / "checkpoint", "bf16", dtype="bfloat16") as engine:
        engine.until(Ready)
        assert isinstance(last_of(engine.answer(max_tokens=4)), Finished)
        modules = set(IMPORTED.findall(engine.log()))
    assert {"torch", "transformers.core_model_loading"} <= modules
    assert not modules & UNUSED


def test_a_wrong_checkpoint_is_told_before_torch_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_tiny(tmp_path / "checkpoint") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with EngineProcess(tmp_path, tmp_path / "checkpoint") as engine:
        assert engine.until(EngineDown).cause == "bad_checkpoint"
        engine.process.wait()
        modules = set(IMPORTED.findall(engine.log()))
    assert "safetensors" in modules
    assert "torch" not in modules


WITHOUT_DECORATORS = """
import importlib, sys
from app.engine.runtime import fast_import
fast_import.DECORATORS = ()
fast_import.import_quickly(lambda: importlib.import_module("app.engine.build"))
assert "torch._dynamo.convert_frame" in sys.modules
import transformers.models.glm4.modeling_glm4
"""


def test_libraries_that_need_more_than_that_get_it() -> None:
    """As those of another version may: an engine that starts slowly is better than none."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_DECORATORS], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "importing all of torch and transformers" in done.stderr
