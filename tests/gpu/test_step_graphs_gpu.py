"""CUDA graphs of the decode step on a real GPU: recorded if possible, the CPU's tokens, and no further memory.

python -m pytest tests/gpu/test_step_graphs_gpu.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.plan import Dtype, Precision
from app.engine.backend.interface import TokenRequest
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model.dense_forward import DenseForward
from app.engine.model.forward import DecodeStep, PromptChunk
from tests.engine_models import backend_of, engine_config, load_quietly
from tests.families import make_family
from tests.tokens import GREEDY, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is seen by torch"),
]
LENGTH, SLOTS, CHUNK, ANSWER = 1200, 5, 64, 40
PROMPTS = [tuple((7 * place + 31 * seed) % 900 for place in range(1, 20 + 150 * seed)) for seed in range(SLOTS)]


@pytest.fixture(scope="module", params=["glm4", "chatglm3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("family") / "checkpoint", request.param)


def backend_for(folder: Path, precision: Precision, dtype: Dtype, device: str = "cuda:0") -> TransformersBackend:
    config = engine_config(
        precision,
        dtype,
        devices=("unused",),
        device_map={"": device},
        max_model_len=LENGTH,
        max_num_seqs=SLOTS,
        prefill_chunk=CHUNK,
    )
    checkpoint = open_checkpoint(folder)
    return backend_of(
        load_quietly(checkpoint, config),
        checkpoint,
        max_model_len=LENGTH,
        slots=SLOTS,
        prefill_chunk=CHUNK,
        dtype=getattr(torch, dtype),
        devices=torch.device(device),
    )


def together(backend: TransformersBackend) -> dict[int, list[Any]]:
    """The answers to all prompts, each started while the others run; by prompt."""
    running: dict[int, int] = {}
    answers: dict[int, list[Any]] = {}
    waiting = list(range(len(PROMPTS)))
    while waiting or running:
        if waiting:
            index = waiting.pop()
            running[backend.add_request(TokenRequest(PROMPTS[index], GREEDY))] = index
            answers[index] = []
        for new in backend.step():
            index = running[new.slot]
            answers[index].append(new.token)
            if len(answers[index]) == ANSWER:
                backend.finish_request(new.slot)
                del running[new.slot]
    return answers


def test_fp32_gives_the_cpus_tokens_alone_and_together(folder: Path) -> None:
    backend, on_cpu = (backend_for(folder, "fp32", "float32", device) for device in ("cuda:0", "cpu"))
    passes = backend._forward
    assert isinstance(passes, DenseForward) and passes._graphs is not None
    alone = {index: tokens(on_cpu, prompt, count=ANSWER) for index, prompt in enumerate(PROMPTS)}
    assert together(backend) == alone
    assert {index: tokens(backend, prompt, count=ANSWER) for index, prompt in enumerate(PROMPTS)} == alone


@pytest.mark.parametrize(
    ("precision", "dtype", "recorded"),
    [("bf16", "bfloat16", True), ("fp16", "float16", True), ("int4", "bfloat16", True), ("int8", "float16", False)],
)
def test_every_other_rung_is_recorded_and_computes_the_same(
    folder: Path, precision: Precision, dtype: Dtype, recorded: bool
) -> None:
    passes = backend_for(folder, precision, dtype)._forward
    assert isinstance(passes, DenseForward) and (passes._graphs is not None) == recorded
    passes(None, [PromptChunk(3, 0, PROMPTS[0])])
    step = DecodeStep((3,), (17,), tuple(len(PROMPTS[0]) if slot == 3 else 0 for slot in range(SLOTS)))
    one = passes(step, []).float().cpu()
    passes._graphs = None
    other = passes(step, []).float().cpu()
    assert torch.nn.functional.cosine_similarity(one, other).item() > 0.99


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("int4", "bfloat16"), ("int8", "float16")])
def test_nothing_grows_after_the_proof(folder: Path, precision: Precision, dtype: Dtype) -> None:
    backend = backend_for(folder, precision, dtype)
    backend.profile_run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_reserved()
    assert all(isinstance(token, int) for answers in together(backend).values() for token in answers)
    assert torch.cuda.max_memory_reserved() <= before
