"""A small checkpoint of every family through a real engine process, at the rung that differs most from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.contract.status import Proving, Ready
from app.contract.wire import Finished
from app.engine.loading.checkpoint import open_checkpoint
from entrypoint.plan import footprint
from tests.engine_models import on_cpu
from tests.families import FAMILIES, make_family
from tests.processes.engine import EngineProcess, last_of


@pytest.mark.parametrize("name", [name for name in FAMILIES if "," not in name and "tied" not in name])
def test_an_engine_answers_at_four_bits(tmp_path: Path, name: str) -> None:
    folder = make_family(tmp_path / "checkpoint", name)
    with EngineProcess(tmp_path, folder, "int4", dtype="bfloat16", max_model_len=256) as engine:
        held = engine.until(Proving).weights_bytes
        engine.until(Ready)
        replies = engine.answer("你好, hello", max_tokens=12)
        end = last_of(replies)
        assert isinstance(end, Finished)
        assert 1 <= end.completion_tokens <= 12
    checkpoint = open_checkpoint(folder)
    planned = on_cpu(footprint.Load("int4", "bfloat16", 256, 1))
    assert held == footprint.weights_bytes(checkpoint.layout, checkpoint.shape, planned)
