"""The next token of each row: drawn from what transformers' own rules leave, the same whoever else is in the batch."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from app.engine.backend.interface import TokenRequest
from app.engine.backend.sampler import TOPK_SIZES, SampledToken, draw_tokens, sample
from app.engine.backend.sequence import SamplingState
from app.engine.errors import NonFiniteLogits
from app.engine.sampling import Sampling
from tests.tokens import GREEDY

NARROW, WIDE = (
    Sampling(temperature=0.7, top_p=0.8, top_k=0, seed=1),
    Sampling(temperature=2.0, top_p=0.98, top_k=0, seed=1),
)
DRAWS = 120


class FixedDraw(SamplingState):
    """Draws one given number."""

    def __init__(self, sampling: Sampling, number: float) -> None:
        super().__init__(TokenRequest((0,), sampling))
        self._number = number

    def draw(self) -> float:
        return self._number


def state_of(sampling: Sampling, prompt: Sequence[int] = (0,), logprobs: int | None = None) -> SamplingState:
    return SamplingState(TokenRequest(tuple(prompt), sampling, logprobs=logprobs))


def shares(logits: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    """How often each token comes of evenly spread random numbers, to 1 / DRAWS."""
    states = [FixedDraw(sampling, (n + 0.5) / DRAWS) for n in range(DRAWS)]
    rows = max(1, 200_000 // logits.shape[-1])
    samples: list[int] = []
    for start in range(0, DRAWS, rows):
        part = states[start : start + rows]
        samples += draw_tokens(logits.expand(len(part), -1), part)
    return {token: count / DRAWS for token, count in Counter(samples).items()}


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities [vocab] by transformers' own warpers, in the order of its `generate`.

    In float64: of thousands of tokens their float32 sums miss the nucleus' border by one.
    """
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    result: torch.Tensor = warpers(torch.tensor([[0]]), logits.double()).softmax(dim=-1)[0]
    return result


def logits_of(vocab: int, spread: float, likely: int = 0) -> torch.Tensor:
    values = torch.randn(1, vocab, generator=torch.Generator().manual_seed(vocab)) * spread
    values[:, :likely] += 12
    return values


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=1),
        NARROW,
        WIDE,
        Sampling(temperature=1.0, top_p=1.0, top_k=7, seed=1),
        Sampling(temperature=1.5, top_p=0.6, top_k=20, seed=1),
        Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=1, min_p=0.1),
        Sampling(temperature=1.2, top_p=0.95, top_k=30, seed=1, min_p=0.02),
        Sampling(temperature=1.0, top_p=1.0, top_k=1000, seed=1),
        Sampling(temperature=1.0, top_p=0.7, top_k=1000, seed=1),
        Sampling(temperature=0.8, top_p=0.01, top_k=0, seed=1),
    ],
)
@pytest.mark.parametrize(
    ("vocab", "spread", "likely"), [(40, 2.0, 0), (5000, 1.0, 0), (5000, 1.5, 300), (5000, 4.0, 0)]
)
def test_drawn_from_what_transformers_warpers_leave(sampling: Sampling, vocab: int, spread: float, likely: int) -> None:
    logits = logits_of(vocab, spread, likely)
    expected = warped(logits, sampling)
    samples = shares(logits, sampling)
    assert all(expected[token] > 0 for token in samples), "nothing that the warpers took out"
    for token, share in enumerate(expected.tolist()):
        assert abs(samples.get(token, 0) - share) <= 1.001 / DRAWS, token


def test_a_wide_nucleus_needs_more_than_the_prefixes() -> None:
    sizes = [int((warped(logits_of(5000, 1.0), rule) > 0).sum()) for rule in (WIDE, NARROW)]
    assert sizes[0] > TOPK_SIZES[1] > sizes[1] > TOPK_SIZES[0], "so the test above has met every size"


def test_what_is_as_likely_as_the_last_is_kept_too() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert set(shares(logits, Sampling(temperature=1.0, top_p=1.0, top_k=2, seed=1))) == {0, 1, 2, 3}
    assert set(shares(logits, Sampling(temperature=1.0, top_p=0.55, top_k=0, seed=1))) == {0, 1, 2, 3}
    assert set(shares(logits, Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=1, min_p=0.36))) == {0, 1, 2, 3}
    assert set(shares(logits, Sampling(temperature=1.0, top_p=1.0, top_k=1, seed=1))) == {0}


def run(rows: Sequence[tuple[torch.Tensor, SamplingState]], steps: int) -> list[list[SampledToken]]:
    """What each row gets over several steps; its logits change from step to step."""
    samples: list[list[SampledToken]] = [[] for _ in rows]
    for step in range(steps):
        logits = torch.cat([own.roll(step * 7, dims=-1) for own, _ in rows])
        for place, one in enumerate(sample(logits, [own for _, own in rows])):
            samples[place].append(one)
    return samples


def samplings() -> st.SearchStrategy[Sampling]:
    return st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        top_p=st.sampled_from([0.3, 0.9, 1.0]),
        top_k=st.sampled_from([0, 1, 50]),
        seed=st.integers(0, 2**64 - 1),
        min_p=st.sampled_from([0.0, 0.05, 1.0]),
        repetition_penalty=st.sampled_from([1.0, 0.8, 1.3]),
        presence_penalty=st.sampled_from([0.0, 2.0, -2.0]),
        frequency_penalty=st.sampled_from([0.0, 0.5, -2.0]),
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(samplings(), st.sampled_from([None, 0, 3]), st.integers(0, 2)), min_size=2, max_size=9))
def test_each_row_gets_what_it_gets_alone(requests: list[tuple[Sampling, int | None, int]]) -> None:
    kinds = [logits_of(1500, 1.0), logits_of(1500, 3.0, 300), logits_of(1500, 6.0)]

    def fresh() -> list[tuple[torch.Tensor, SamplingState]]:
        return [(kinds[kind], state_of(sampling, (1, 2, 3), logprobs)) for sampling, logprobs, kind in requests]

    together = run(fresh(), 4)
    for place, row in enumerate(fresh()):
        assert run([row], 4)[0] == together[place]


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    def tokens(seed: int) -> list[int | NonFiniteLogits]:
        return [
            one.token
            for one in run(
                [(logits_of(500, 1.0), state_of(Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=seed)))], 20
            )[0]
        ]

    assert tokens(3) == tokens(3)
    assert len({tuple(map(str, tokens(seed))) for seed in range(5)}) == 5


def test_penalties_are_transformers_and_openais() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        seed=0,
        repetition_penalty=1.3,
        presence_penalty=0.7,
        frequency_penalty=-0.4,
    )
    own = state_of(sampling, prompt=(1, 2, 2, 5))
    for token in (5, 7, 7):
        own.append_token(token)
    logits = logits_of(10, 2.0)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[1, 2, 2, 5, 5, 7, 7]]), logits)
    for token, count in ((5, 1), (7, 2)):
        expected[0, token] -= count * -0.4 + 0.7
    row = logits[0].clone()
    own.adjust_logits(row)
    torch.testing.assert_close(row, expected[0])
    assert (row != logits[0]).nonzero().flatten().tolist() == [1, 2, 5, 7]


def test_what_is_penalised_gives_way() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]])

    def answer(sampling: Sampling, prompt: tuple[int, ...] = (2,)) -> list[int | NonFiniteLogits]:
        own = state_of(sampling, prompt)
        return [sample(logits.clone(), [own])[0].token for _ in range(5)]

    assert answer(GREEDY) == answer(Sampling(temperature=1e-40, top_p=1.0, top_k=0, seed=3)) == [0] * 5
    assert answer(Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0, presence_penalty=1.5)) == [0, 1, 0, 0, 0]
    assert answer(Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0, frequency_penalty=1.1)) == [0, 1, 0, 2, 1]
    assert answer(Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0, repetition_penalty=2.0), (0,)) == [
        1,
        0,
        0,
        0,
        0,
    ], "the prompt counts"


def test_log_probabilities_are_the_models_own() -> None:
    logits = logits_of(50, 2.0)
    wanted = logits.log_softmax(dim=-1)[0]
    harsh = Sampling(temperature=2.0, top_p=0.2, top_k=3, seed=1, repetition_penalty=5.0)
    best = wanted.argsort(descending=True).tolist()
    for count in (0, 5, 20):
        own = state_of(harsh, prompt=best[:2], logprobs=count)
        samples = sample(logits.repeat(3, 1), [state_of(GREEDY), own, state_of(GREEDY, logprobs=1)])
        assert samples[0].logprobs is None
        logprobs = samples[1].logprobs
        assert logprobs is not None and isinstance(samples[1].token, int)
        assert math.isclose(logprobs.chosen, float(wanted[samples[1].token]), abs_tol=1e-6)
        assert [token for token, _ in logprobs.top] == best[:count]
        assert all(math.isclose(value, float(wanted[token]), abs_tol=1e-6) for token, value in logprobs.top)
        last = samples[2].logprobs
        assert last is not None and len(last.top) == 1


def test_more_alternatives_than_tokens() -> None:
    logprobs = sample(torch.zeros(1, 3), [state_of(GREEDY, logprobs=20)])[0].logprobs
    assert logprobs is not None and len(logprobs.top) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_no_numbers_fails_alone(bad: float) -> None:
    logits = logits_of(300, 2.0).repeat(4, 1)
    logits[1, 17] = logits[2, 5] = bad
    own = Sampling(temperature=1.0, top_p=0.9, top_k=40, seed=5)
    samples = sample(logits, [state_of(own), state_of(own, logprobs=2), state_of(GREEDY), state_of(GREEDY)])
    alone = sample(logits_of(300, 2.0), [state_of(own)])
    assert [type(one.token) for one in samples] == [int, NonFiniteLogits, NonFiniteLogits, int]
    assert samples[0] == alone[0]


def test_logits_near_the_end_of_float32_break_nothing() -> None:
    huge = torch.tensor([[3e38, -3e38, 1.0, 0.0]])
    rules = [
        Sampling(temperature=1e-3, top_p=0.5, top_k=2, seed=1),
        Sampling(temperature=2.0, top_p=1.0, top_k=0, seed=1, repetition_penalty=10.0),
        GREEDY,
    ]
    samples = sample(huge.repeat(3, 1), [state_of(one, (0, 1)) for one in rules])
    assert all(isinstance(one.token, NonFiniteLogits) or one.token in range(4) for one in samples)
    assert samples[2].token == 0


def test_a_draw_never_leaves_the_vocabulary() -> None:
    logits = logits_of(700, 0.5)
    for number in (2.0**-53, 1.0):
        for rule in (
            Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=1),
            Sampling(temperature=1.0, top_p=0.9, top_k=0, seed=1),
            Sampling(temperature=1.0, top_p=1.0, top_k=5, seed=1),
        ):
            (token,) = draw_tokens(logits, [FixedDraw(rule, number)])
            assert warped(logits, rule)[token] > 0


def test_openings_hold_for_every_way_of_sampling() -> None:
    rows = [
        GREEDY,
        Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=7),
        Sampling(temperature=0.7, top_p=0.5, top_k=2, seed=7, min_p=0.5, repetition_penalty=1.5),
    ]
    states = [SamplingState(TokenRequest((1,), one, ((1, 2), (3, 2)))) for one in rows]
    draw = random.Random(1)
    for place in range(3):
        logits = torch.tensor([[draw.uniform(-9, 9) for _ in range(5)] for _ in rows])
        logits[:, 4] = 40.0
        tokens = {one.token for one in sample(logits, states)}
        assert tokens <= ({1, 3}, {2}, {4})[place]
