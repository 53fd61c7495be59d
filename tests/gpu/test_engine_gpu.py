"""The engine on a real GPU: every rung loads, answers and keeps to what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from app.contract.plan import Dtype, Precision
from app.contract.status import Proving, Ready
from app.contract.wire import Finished
from tests.processes.engine import EngineProcess, last_of, make_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is seen by torch"),
]


def device_uuid() -> str:
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"), ("int8", "float16"), ("int4", "bfloat16")],
)
def test_every_rung_loads_and_answers(checkpoint: Path, tmp_path: Path, precision: Precision, dtype: Dtype) -> None:
    uuid = device_uuid()
    with EngineProcess(tmp_path, checkpoint, precision, dtype=dtype, devices=(uuid,)) as engine:
        weights = engine.until(Proving).weights_bytes
        ready = engine.until(Ready)
        assert isinstance(last_of(engine.answer(max_tokens=8)), Finished)
    assert weights < ready.resident_bytes <= ready.proof.measured_bytes < weights + (2 << 30), json.dumps(str(ready))
