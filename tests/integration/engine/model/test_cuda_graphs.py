"""Recorded decode steps: the same tokens as computed step by step, whoever runs, idles, comes and goes.

Recording is acted on the CPU (`tests.recorded_steps`), where what Python said once is repeated for ever, as in a CUDA
graph; tests/gpu has the real one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.config import EngineConfig
from app.engine.backend import prefix_slots
from app.engine.backend.interface import TokenRequest
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.loading import load
from app.engine.loading.checkpoint import Checkpoint, open_checkpoint
from app.engine.model.dense_forward import DensePasses
from app.engine.model.kv_cache import SlotCache
from app.engine.sampling import Sampling
from app.layouts import graph_sizes
from app.layouts.graph_sizes import StepSize, step_sizes
from tests.families import make_family
from tests.recorded_steps import record
from tests.tokens import GREEDY, tokens

LENGTH, CHUNK = 160, 64
CPU = torch.device("cpu")


@dataclass
class Model:
    """Loaded in fp32."""

    checkpoint: Checkpoint
    model: Any
    repeated: list[int] = field(default_factory=list)
    """Rows of each repeated step."""

    def backend(self, slots: int) -> TransformersBackend:
        cache = SlotCache(self.checkpoint.shape, slots, LENGTH, torch.float32, CPU)
        return TransformersBackend(self.model, cache, CHUNK, self.checkpoint.shape.vocab)

    def recorded(self, slots: int) -> TransformersBackend:
        """The same with recorded steps."""
        backend = self.backend(slots)

        def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
            repeat = record(run)

            def noted() -> torch.Tensor:
                hidden = repeat()
                self.repeated.append(len(hidden))
                return hidden

            return noted

        backend._passes = DensePasses(self.model, backend._cache, capture)
        return backend


@pytest.fixture(params=["glm4", "chatglm3"])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(graph_sizes, "LEAST_WIDTH", 40)
    make_family(tmp_path / "checkpoint", request.param)
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    config = EngineConfig("fp32", "float32", ("cpu",), {"": "cpu"}, LENGTH, 1, CHUNK, 0, cpu_threads=2)
    return Model(checkpoint, load.load_model(checkpoint, config, lambda _count: None))


def drawn(count: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(900), k=count))


def requests() -> list[TokenRequest]:
    system = drawn(30, 1)
    prompts = [drawn(3, 2), system, system + drawn(20, 3), drawn(100, 4), drawn(LENGTH - 1, 5), system + drawn(3, 6)]
    warm = [
        Sampling(temperature=0.9, top_p=0.95, top_k=0, seed=7),
        Sampling(
            temperature=1.1,
            top_p=0.9,
            top_k=60,
            seed=14,
            min_p=0.02,
            repetition_penalty=1.2,
            presence_penalty=0.4,
            frequency_penalty=-0.3,
        ),
    ]
    return [TokenRequest(ids, (GREEDY, *warm)[place % 3]) for place, ids in enumerate(prompts)]


def answered(backend: TransformersBackend, asked: Sequence[TokenRequest], count: int, seed: int) -> list[list[int]]:
    """What each gets, started in any order between steps, as slots are free."""
    draw, found = random.Random(seed), [[] for _ in asked]  # type: list[list[int]]
    waiting, running = draw.sample(range(len(asked)), len(asked)), {}  # type: list[int], dict[int, int]
    while waiting or running:
        while waiting and len(running) < backend.slots and draw.random() < 0.5:
            index = waiting.pop()
            running[backend.start(asked[index])] = index
        for new in backend.step():
            assert isinstance(new.token, int)
            index = running[new.slot]
            found[index].append(new.token)
            if len(found[index]) == min(count, LENGTH - len(asked[index].prompt_ids)):
                backend.stop(new.slot)
                del running[new.slot]
    return found


@pytest.mark.parametrize(("slots", "seed"), [(1, 1), (2, 2), (4, 3), (5, 4), (5, 5)])
@pytest.mark.parametrize("reuse", [True, False], ids=["reused", "computed again"])
def test_each_gets_what_it_gets_alone(
    model: Model, slots: int, seed: int, reuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reuse:
        monkeypatch.setattr(prefix_slots, "LEAST_REUSE", LENGTH)
    asked = requests()
    alone = [tokens(model.backend(1), one.prompt_ids, one.sampling, 12) for one in asked]
    backend = model.recorded(slots)
    assert answered(backend, asked, 12, seed) == alone
    assert answered(backend, asked, 12, seed + 10) == alone, "and what idle slots hold was left alone"
    assert set(model.repeated) == {size.rows for size in step_sizes(slots, LENGTH, False)}


def test_what_idle_slots_hold_is_reused_unharmed(model: Model) -> None:
    """Their rows are computed with the others', and must write where nobody looks."""
    backend, asked = model.recorded(3), requests()
    first = tokens(backend, asked[2].prompt_ids, count=8)
    running = [backend.start(asked[place]) for place in (0, 3)]
    for _ in range(8):
        backend.step()
    for slot in running:
        backend.stop(slot)
    before = backend.counters.reused_tokens
    assert tokens(backend, asked[2].prompt_ids, count=8) == first
    assert backend.counters.reused_tokens - before >= len(asked[2].prompt_ids) - 1


def test_a_step_that_cant_be_recorded_is_computed_as_ever(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    expected = tokens(model.backend(1), drawn(9, 1), count=5)
    product = model.model.model.layers[0].mlp.down_proj
    product.register_forward_hook(lambda _module, _args, output: output + float(output.sum()) * 0)
    backend = model.recorded(2)
    assert "can't be recorded: operation not permitted" in caplog.text
    assert tokens(backend, drawn(9, 1), count=5) == expected
    assert not model.repeated


def test_running_out_of_memory_while_recording_ends_the_engine(model: Model) -> None:
    def full(_run: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        DensePasses(model.model, model.backend(2)._cache, full)


def test_sizes_are_few_and_hold_everything() -> None:
    assert step_sizes(1, 300, False) == (StepSize(1, 300),)
    assert step_sizes(6, 8192, True) == (StepSize(1, 512), StepSize(1, 2048), StepSize(1, 8192))
    for slots in range(1, 65):
        for length in (1, 511, 512, 513, 8192, 131072):
            sizes = step_sizes(slots, length, False)
            assert sizes[-1] == StepSize(slots, length)
            assert len(sizes) <= 4 * 6
