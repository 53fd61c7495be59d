"""Several sequences at once: each gets the tokens that it gets alone, and none notices another's end or fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from app.engine.backend import prefix_slots, transformers_backend
from app.engine.backend.interface import TokenRequest
from app.engine.backend.prefix_slots import MIN_REUSED_TOKENS
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.errors import NonFiniteLogits
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model import windows
from app.engine.model.windows import BatchWindow, ChunkWindow, Window
from app.engine.sampling import Sampling
from tests.engine_models import backend_of, engine_config, load_quietly
from tests.families import make_family
from tests.tokens import GREEDY, tokens

LENGTH, SLOTS, CHUNK, IDS = 320, 5, 64, 900
NAMES = ["glm4", "chatglm3", "glm4_moe", "glm4_moe_lite"]


@dataclass(frozen=True)
class Case:
    """A loaded model in fp32, and requests with the tokens that each gets from a backend of its own."""

    folder: Path
    model: Any
    requests: tuple[TokenRequest, ...]
    counts: tuple[int, ...]
    alone: tuple[tuple[int, ...], ...]

    def backend(self, slots: int = SLOTS, chunk: int = CHUNK) -> TransformersBackend:
        files = open_checkpoint(self.folder)
        return backend_of(self.model, files, max_model_len=LENGTH, slots=slots, prefill_chunk=chunk)


def drawn(count: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(IDS), k=count))


def mixed_requests() -> tuple[tuple[TokenRequest, ...], tuple[int, ...]]:
    """Short and long, greedy and sampled, with common beginnings, one held to openings; and how long each answers."""
    system = drawn(40, 1)
    prompts = [
        drawn(1, 2),
        drawn(7, 3),
        system,
        system + drawn(9, 4),
        system + drawn(90, 5),
        drawn(270, 6),
        drawn(7, 3),
    ]
    samplings = [
        GREEDY,
        Sampling(temperature=0.9, top_p=0.95, top_k=0, seed=11),
        GREEDY,
        Sampling(temperature=1.3, top_p=1.0, top_k=40, seed=12),
        GREEDY,
        GREEDY,
    ]
    samplings.append(Sampling(temperature=0.9, top_p=0.95, top_k=0, seed=13))
    prompts += [system + drawn(20, 8), drawn(50, 9), drawn(9, 10)]
    samplings += [
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
        Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=15, min_p=0.01, repetition_penalty=0.9),
        Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=16, repetition_penalty=1.3, frequency_penalty=0.5),
    ]
    required_prefixes = ((5, 6), (5, 7, 8))
    requests = tuple(
        TokenRequest(prompt, sampling, required_prefixes if index == 3 else (), (None, 2, 0)[index % 3])
        for index, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    )
    return requests, (12, 30, 9, 17, 12, 25, 21, 14, 11, 16)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {name: make_case(tmp_path_factory.mktemp("family") / "checkpoint", name) for name in NAMES}


def make_case(folder: Path, name: str) -> Case:
    make_family(folder, name)
    model = load_quietly(folder, engine_config(max_model_len=LENGTH))
    requests, counts = mixed_requests()
    empty = Case(folder, model, requests, counts, ())
    alone = tuple(
        tuple(tokens(empty.backend(1), request.prompt_ids, request.sampling, count, request.required_prefixes))
        for request, count in zip(requests, counts, strict=True)
    )
    return Case(folder, model, requests, counts, alone)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


class Runner:
    """Starts requests on a backend, steps it and collects what each gets, until each has its count."""

    def __init__(self, case: Case, backend: TransformersBackend) -> None:
        self.case, self.backend = case, backend
        self.tokens_of: dict[int, list[int | Exception]] = {}
        self.slots: dict[int, int] = {}
        """Requests by slot."""

    def start(self, index: int) -> int:
        slot = self.backend.add_request(self.case.requests[index])
        assert slot not in self.slots
        self.slots[slot] = index
        self.tokens_of[index] = []
        return slot

    def step(self) -> None:
        for new in self.backend.step():
            index = self.slots[new.slot]
            self.tokens_of[index].append(new.token)
            if isinstance(new.token, Exception) or len(self.tokens_of[index]) == self.case.counts[index]:
                self.stop(new.slot)

    def stop(self, slot: int) -> None:
        self.backend.finish_request(slot)
        del self.slots[slot]

    def until(self, reached: Callable[[], bool]) -> None:
        for _ in range(2000):
            if reached():
                return
            self.step()
        raise AssertionError("a sequence makes no progress")

    def finish(self) -> None:
        self.until(lambda: not self.slots)

    def check(self, indices: Sequence[int]) -> None:
        for index in indices:
            assert tuple(self.tokens_of[index]) == self.case.alone[index], index


class Ticking:
    """A clock that goes on by a tenth of a second at each look: prompts and answers take turns, always the same."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 0.1
        return self._now


def plain(case: Case) -> Any:
    """The native class with transformers' own attention; for a layout that it can't read, filled by our loader."""
    if case.model.config.model_type == "glm":
        return load_quietly(case.folder, engine_config(max_model_len=LENGTH))
    return AutoModelForCausalLM.from_pretrained(str(case.folder), dtype=torch.float32)


def test_greedy_is_what_generate_gives(case: Case) -> None:
    theirs = plain(case)
    assert theirs.config._attn_implementation == "sdpa"
    compared = 0
    for request, count, result in zip(case.requests, case.counts, case.alone, strict=True):
        if request.sampling == GREEDY:
            ids, options = torch.tensor([request.prompt_ids]), {"eos_token_id": None, "pad_token_id": 0}
            mask = torch.ones_like(ids)
            generated = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=count, **options)
            assert generated[0, ids.shape[1] :].tolist() == list(result)
            compared += 1
    assert compared == 4


@pytest.mark.parametrize("reuse", [True, False], ids=["reused", "computed again"])
@pytest.mark.parametrize(
    ("slots", "chunk", "clock", "seed"),
    [(5, 64, True, 1), (5, 512, False, 2), (3, 33, True, 3), (2, 64, True, 4), (7, 16, False, 5), (4, 1, True, 6)],
)
def test_each_gets_what_it_gets_alone(
    case: Case, slots: int, chunk: int, clock: bool, seed: int, reuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any batch, at any order of arrival and any chunk size, with prefixes reused and without."""
    if clock:
        monkeypatch.setattr(transformers_backend, "time", Ticking())
    if not reuse:
        monkeypatch.setattr(prefix_slots, "MIN_REUSED_TOKENS", LENGTH)
    draw, runner = random.Random(seed), Runner(case, case.backend(slots, chunk))
    waiting = draw.sample(range(len(case.requests)), len(case.requests))
    largest = 0
    while waiting:
        while waiting and len(runner.slots) < slots and draw.random() < 0.7:
            runner.start(waiting.pop())
        largest = max(largest, len(runner.slots))
        for _ in range(draw.randrange(12)):
            runner.step()
    runner.finish()
    runner.check(range(len(case.requests)))
    assert largest >= 2


def test_one_that_is_cancelled_frees_its_slot_at_once(case: Case) -> None:
    runner = Runner(case, case.backend(slots=2))
    runner.start(0)
    runner.step()
    long = runner.start(5)
    runner.step()
    assert not runner.tokens_of[5], "in mid-prefill"
    runner.stop(long)
    assert runner.start(3) == long
    runner.until(lambda: bool(runner.tokens_of[3]))
    runner.stop(long)
    assert runner.start(5) == long
    runner.finish()
    runner.check([0, 5])


NOBODY = -1


class Fault:
    """Makes what a middle layer keeps of one slot's new tokens NaN while it is set."""

    def __init__(self, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slot = NOBODY
        layer = runner.backend._cache.slot_layers[1]
        write = layer.write

        def broken(window: Window, keys: torch.Tensor, values: torch.Tensor) -> None:
            if isinstance(window, ChunkWindow) and window.slot == self.slot:
                values = values * torch.nan
            elif isinstance(window, BatchWindow):
                values = values.clone()
                for row in (window.slots == self.slot).nonzero().flatten().tolist():
                    values[row] = torch.nan
            write(window, keys, values)

        monkeypatch.setattr(layer, "write", broken)


def test_a_sequence_that_breaks_down_fails_alone_and_leaves_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MIN_KEYS", LENGTH)  # all attend together: a short one's mask covers what is old
    runner = Runner(case, case.backend(slots=3))
    fault = Fault(runner, monkeypatch)
    runner.start(5)
    runner.start(1)
    victim = runner.start(4)
    runner.until(lambda: len(runner.tokens_of[4]) == 3)
    fault.slot = victim
    runner.until(lambda: victim not in runner.slots)
    *before, error = runner.tokens_of[4]
    assert tuple(before) == case.alone[4][:3]
    assert isinstance(error, NonFiniteLogits)
    assert runner.start(3) == victim, "and in its prompt"
    runner.until(lambda: victim not in runner.slots)
    assert [type(error) for error in runner.tokens_of[3]] == [NonFiniteLogits]
    fault.slot = NOBODY
    assert 5 in runner.slots.values(), "a longer one still runs"
    assert runner.start(6) == victim
    runner.finish()
    runner.check([5, 1, 6])


def test_nothing_of_a_sequence_that_broke_down_is_used_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(case, case.backend(slots=1))
    fault = Fault(runner, monkeypatch)
    slot = runner.start(4)
    runner.until(lambda: len(runner.tokens_of[4]) == 3)
    fault.slot = slot
    runner.finish()
    assert isinstance(runner.tokens_of[4][-1], NonFiniteLogits)
    fault.slot = NOBODY
    runner.start(4)
    runner.finish()
    runner.check([4])


def test_an_error_in_a_batch_fails_its_sequences_and_not_the_engine(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(case, case.backend())
    for index in (0, 1):
        runner.start(index)
    runner.until(lambda: all(runner.tokens_of.values()))
    with monkeypatch.context() as patch:
        patch.setattr(case.model.model.layers[1].self_attn.o_proj, "forward", lambda _seen: 1 / 0)
        runner.step()
    assert [type(runner.tokens_of[index][-1]) for index in (0, 1)] == [ZeroDivisionError] * 2
    assert not runner.slots
    for index in (0, 1):
        runner.start(index)
    runner.finish()
    runner.check([0, 1])


class Counted:
    """Tokens that went through the model."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        self._handle = model.model.embed_tokens.register_forward_hook(self._count)

    def _count(self, _module: Any, args: tuple[torch.Tensor], _output: torch.Tensor) -> None:
        self.tokens += args[0].numel()

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def test_what_is_held_is_not_computed_again(case: Case) -> None:
    backend = case.backend(slots=3)

    def first_token(ids: tuple[int, ...]) -> int:
        with Counted(case.model) as counted:
            tokens(backend, ids, count=1)
        return counted.tokens

    system, answer = drawn(40, 1), drawn(70, 7)
    assert first_token(system + drawn(24, 4)) == 64
    assert first_token(system + drawn(24, 4)) == 1, "all but the last"
    assert first_token(system + drawn(24, 4) + answer) == 64 + 16, "the next turn: 70 more"
    assert first_token(system + drawn(30, 5)) == 32, "another's conversation after the same system prompt: 30 more"
    assert first_token(system + drawn(24, 4) + answer + answer) == 64 + 16, "whose slot was left alone"
    assert first_token(system[: MIN_REUSED_TOKENS - 1] + drawn(17, 6)) == 32, "too little in common"


def test_what_a_running_one_holds_is_copied(case: Case) -> None:
    runner = Runner(case, case.backend())
    runner.start(4)
    runner.until(lambda: len(runner.tokens_of[4]) == 2)
    with Counted(case.model) as counted:
        runner.start(3)
        runner.until(lambda: bool(runner.tokens_of[3]))
    assert counted.tokens <= 16 + 2 * (len(runner.tokens_of[4]) - 2), (
        "9 behind the 40 that they share, the other's beside"
    )
    runner.finish()
    runner.check([3, 4])


BLOCKS = tuple(drawn(20, seed) for seed in (21, 22, 23))
PROMPTS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4).map(lambda blocks: sum(blocks, ()))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), PROMPTS),
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("stop"), st.integers(0, 3)),
    ),
    max_size=14,
)
ANSWER = 5


class History:
    """A backend under any operations; each answer is held to that of a backend without a past."""

    def __init__(self, case: Case, slots: int, chunk: int) -> None:
        self._case, self._backend = case, case.backend(slots, chunk)
        self._running: dict[int, tuple[tuple[int, ...], list[int]]] = {}

    def start(self, prompt: tuple[int, ...]) -> None:
        if len(self._running) < self._backend.slots:
            self._running[self._backend.add_request(TokenRequest(prompt, GREEDY))] = prompt, []

    def stop(self, which: int) -> None:
        for slot in sorted(self._running)[which : which + 1]:
            self._backend.finish_request(slot)
            del self._running[slot]

    def step(self, times: int) -> None:
        for new in (new for _ in range(times) for new in self._backend.step()):
            assert isinstance(new.token, int)
            prompt, result = self._running[new.slot]
            result.append(new.token)
            assert tuple(result) == answer_of(self._case, prompt)[: len(result)]
            if len(result) == ANSWER:
                self.stop(sorted(self._running).index(new.slot))

    def finish(self) -> None:
        self.step(200)
        assert not self._running


ANSWERS: dict[tuple[int, ...], tuple[int, ...]] = {}


def answer_of(case: Case, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """What a fresh backend says."""
    if prompt not in ANSWERS:
        ANSWERS[prompt] = tuple(tokens(case.backend(1), prompt, count=ANSWER))
    return ANSWERS[prompt]


@settings(max_examples=30, deadline=None)
@given(OPERATIONS, st.integers(1, 4), st.sampled_from([8, 64]))
def test_no_history_of_the_slots_changes_an_answer(
    cases: dict[str, Case], operations: list[tuple[str, Any]], slots: int, chunk: int
) -> None:
    history = History(cases["glm4"], slots, chunk)
    for name, argument in operations:
        getattr(history, name)(argument)
    history.finish()
