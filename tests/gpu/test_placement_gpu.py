"""A spread model on real GPUs: the answers of one device, and what the plan counts on each.

Needs torch with CUDA; the test over two GPUs is skipped where there is one:

    python -m pytest tests/gpu/test_placement_gpu.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app.contract.plan import Dtype, Precision
from app.contract.status import Ready
from app.contract.wire import Finished
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.loading.placement import device_map_of
from app.engine.model.forward import PromptChunk
from tests.engine_models import backend_of, engine_config, load_quietly
from tests.families import LAYERS, make_family
from tests.processes.engine import EngineProcess, last_of
from tests.tokens import tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is seen by torch"),
]
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
LENGTH = 96
PROMPT = tuple(range(5, 69))
RUNGS: list[tuple[Precision, Dtype]] = [
    ("fp32", "float32"),
    ("bf16", "bfloat16"),
    ("int8", "float16"),
    ("int4", "bfloat16"),
]


@pytest.fixture(scope="module", params=["glm4", "glm4_moe", "glm4_moe_lite"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("family") / "checkpoint", request.param)


def spread(*devices: str) -> dict[str, str]:
    """Embedding with the first, the layers in turn, norm and head with the last."""
    layers = {f"model.layers.{index}": devices[index * len(devices) // LAYERS] for index in range(LAYERS)}
    return {"model.embed_tokens": devices[0], **layers, "model.norm": devices[-1], "lm_head": devices[-1]}


def backend_for(folder: Path, precision: Precision, dtype: Dtype, devices: dict[str, str]) -> TransformersBackend:
    config = engine_config(
        precision, dtype, devices=("unused",), device_map=devices, max_model_len=LENGTH, prefill_chunk=32
    )
    checkpoint = open_checkpoint(folder)
    device_map = device_map_of(config, checkpoint.shape.layers)
    model = load_quietly(checkpoint, config)
    assert {parameter.device for parameter in model.parameters()} == set(device_map.used)
    return backend_of(
        model,
        checkpoint,
        max_model_len=LENGTH,
        prefill_chunk=32,
        dtype=getattr(torch, dtype),
        devices=device_map.layers,
    )


def last_hidden(backend: TransformersBackend) -> torch.Tensor:
    """Of a prompt in two chunks, the second of which has a mask."""
    backend._forward(None, [PromptChunk(0, 0, PROMPT[:32])])
    return backend._forward(None, [PromptChunk(0, 32, PROMPT[32:])]).float().cpu()


@pytest.mark.parametrize(("precision", "dtype"), RUNGS)
def test_the_gpu_and_the_cpu_together_compute_the_same(checkpoint: Path, precision: Precision, dtype: Dtype) -> None:
    alone = backend_for(checkpoint, precision, dtype, {"": "cuda:0"})
    both = backend_for(checkpoint, precision, dtype, spread("cpu", "cuda:0"))
    one, other = last_hidden(alone), last_hidden(both)
    tolerance = 1e-3 if precision == "fp32" else 0.1
    assert torch.nn.functional.cosine_similarity(one, other).item() > 1 - tolerance
    assert len(tokens(both, PROMPT)) == LENGTH - len(PROMPT)


@TWO_GPUS
@pytest.mark.parametrize(("precision", "dtype"), RUNGS)
def test_two_gpus_answer_as_one_does(checkpoint: Path, precision: Precision, dtype: Dtype) -> None:
    one, two = (
        backend_for(checkpoint, precision, dtype, devices) for devices in ({"": "cuda:0"}, spread("cuda:0", "cuda:1"))
    )
    assert tokens(two, PROMPT) == tokens(one, PROMPT)


def uuid(index: int) -> str:
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_the_engine_process_measures_each_device(checkpoint: Path, tmp_path: Path, precision: Precision) -> None:
    devices = (uuid(0), "cpu")
    with EngineProcess(
        tmp_path, checkpoint, precision, dtype="bfloat16", devices=devices, device_map=spread("cpu", "cuda:0")
    ) as engine:
        ready = engine.until(Ready)
        assert isinstance(last_of(engine.answer(max_tokens=8)), Finished)
    assert ready.proof.measured_by_device.keys() == {uuid(0), "cpu"}
    assert sum(ready.proof.measured_by_device.values()) == ready.proof.measured_bytes
    assert all(count > 0 for count in ready.resident_by_device.values())
