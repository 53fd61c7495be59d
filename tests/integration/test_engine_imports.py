"""What a starting engine imports: what Berth never uses took half of the time from start to ready."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.contract.status import Ready
from app.contract.wire import Finished
from tests.families import make_family
from tests.integration.engine_process import EngineProcess, last_of

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
