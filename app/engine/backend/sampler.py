"""Samples the next token of each sequence in a batch from its logits.

The order is transformers' (`GenerationMixin._get_logits_processor`): repetition penalty, then presence and frequency
penalty as OpenAI defines them, temperature, top_k, top_p, min_p. Tokens exactly as likely as the last one kept are
kept too, so that the result never depends on how ties are sorted.

A sequence draws one number a token from its own generator, seeded by its seed. So its tokens depend on its logits, its
seed and the token's position alone, not on the other sequences in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from app.engine.backend.interface import Logprobs
from app.engine.backend.sequence import SamplingState
from app.engine.errors import NonFiniteLogits

TOPK_SIZES = (256, 4096)
"""How many of the likeliest tokens are tried before all are sorted, which takes some fifty times as long."""
ELEMENTS_AT_ONCE = 1 << 20
"""Probabilities in work at the same time: bounds the memory, 16 bytes each."""
TOP_P_OFF = 2.0
"""A share that no sum of probabilities reaches, rounding errors included."""


@dataclass(frozen=True)
class SampledToken:
    """The token of one row."""

    token: int | NonFiniteLogits
    logprobs: Logprobs | None = None


def sample(logits: torch.Tensor, states: Sequence[SamplingState]) -> list[SampledToken]:
    """One token a row of float32 logits [rows, vocab], which are changed in place; each state is advanced by its token.

    A row whose logits are NaN or infinite gets `NonFiniteLogits`; the other rows are not affected.
    """
    finite: list[bool] = logits.sum(dim=-1).isfinite().tolist()
    wanted = [row for row, state in enumerate(states) if state.logprobs is not None and finite[row]]
    unchanged = logits[wanted].log_softmax(dim=-1) if wanted else None
    for row, state in enumerate(states):
        if finite[row]:
            state.adjust_logits(logits[row])
    tokens = _sample_ids(logits, states, finite)
    logprobs: dict[int, Logprobs] = {}
    if unchanged is not None:
        counts = [states[row].logprobs or 0 for row in wanted]
        rows = read_logprobs(unchanged, [max(0, tokens[row]) for row in wanted], counts)
        logprobs = dict(zip(wanted, rows, strict=True))
    for state, token in zip(states, tokens, strict=True):
        if token >= 0:
            state.append_token(token)
    return [
        SampledToken(token, logprobs.get(row)) if token >= 0 else SampledToken(NonFiniteLogits())
        for row, token in enumerate(tokens)
    ]


def _sample_ids(logits: torch.Tensor, states: Sequence[SamplingState], finite: Sequence[bool]) -> list[int]:
    """A token a row; -1 for rows without one."""
    tokens = [-1] * len(states)
    greedy = [row for row, state in enumerate(states) if finite[row] and state.sampling.is_greedy]
    if greedy:
        best: list[int] = logits.argmax(dim=-1).tolist()
        for row in greedy:
            tokens[row] = best[row]
    random = [row for row, state in enumerate(states) if finite[row] and not state.sampling.is_greedy]
    step = max(1, ELEMENTS_AT_ONCE // logits.shape[-1])
    for start in range(0, len(random), step):
        rows = random[start : start + step]
        for row, token in zip(rows, draw_tokens(logits[rows], [states[row] for row in rows]), strict=True):
            tokens[row] = token
    return tokens


def read_logprobs(values: torch.Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Logprobs]:
    """From each row of log probabilities [rows, vocab], that of its token and the `counts` highest."""
    chosen = values.gather(-1, torch.tensor(tokens, device=values.device)[:, None])[:, 0].tolist()
    best = values.topk(min(max(counts), values.shape[-1]), dim=-1)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Logprobs(logprob, tuple(zip(ids[:count], top[:count], strict=True)))
        for logprob, (ids, top), count in zip(chosen, tops, counts, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class SamplingRules:
    """The parameters of each row's draw, each [rows, 1]."""

    top_k: torch.Tensor
    has_top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    drawn: torch.Tensor
    """Random numbers, above 0 and at most 1."""

    @classmethod
    def draw(cls, states: Sequence[SamplingState], vocab: int, device: torch.device) -> SamplingRules:
        """The rules of these sequences, each of which draws its next random number."""
        parameters = [state.sampling for state in states]

        def column(values: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        return cls(
            top_k=column([min(one.top_k or vocab, vocab) for one in parameters], torch.long),
            has_top_k=column([bool(one.top_k) for one in parameters], torch.bool),
            top_p=column([one.top_p if one.top_p < 1 else TOP_P_OFF for one in parameters], torch.float64),
            min_p=column([one.min_p for one in parameters], torch.float32),
            drawn=column([state.draw() for state in states], torch.float64),
        )

    def select(self, rows: Sequence[int]) -> SamplingRules:
        """The rules of some rows."""
        return SamplingRules(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def least_probability(self, values: torch.Tensor, complete: bool) -> torch.Tensor:
        """The least probability that is kept, [rows, 1], from the likeliest ones in descending order, [rows, n].

        It is the last of these if a rule may keep more than them; `complete` says that there are no more.
        """
        sums, last = values.cumsum(dim=-1, dtype=torch.float64), values[:, -1:]
        least = values.gather(-1, self.top_k.clamp(max=values.shape[-1]) - 1)
        likely = values >= least
        # top_p takes its share of what top_k leaves. If that may reach beyond these values, its sum is not known yet.
        known = (last < least) | (last == 0) | complete
        total = sums.gather(-1, _last_true(likely)).where(known, torch.inf)
        inside = likely & (sums - values < self.top_p * total.where(self.has_top_k, 1))
        return torch.maximum(values.gather(-1, _last_true(inside)), values[:, :1] * self.min_p)


def _last_true(mask: torch.Tensor) -> torch.Tensor:
    """Index of the last true value of rows that begin with all of theirs, [rows, 1]; 0 if there is none (NaN)."""
    return (mask.sum(dim=-1, keepdim=True) - 1).clamp(min=0)


def draw_tokens(logits: torch.Tensor, states: Sequence[SamplingState]) -> list[int]:
    """A token drawn for each row of [rows, vocab]; -1 if the row has no distribution."""
    temperatures = torch.tensor([state.sampling.temperature for state in states], device=logits.device)
    probs = (logits / temperatures[:, None]).softmax(dim=-1)
    rules = SamplingRules.draw(states, logits.shape[-1], logits.device)
    tokens = torch.full((len(states), 1), -1, device=logits.device)
    truncated = [row for row, state in enumerate(states) if state.sampling.truncates]
    full = [row for row in range(len(states)) if row not in truncated]
    if full:
        tokens[full] = draw_indices(probs[full], rules.drawn[full])
    for size in TOPK_SIZES:
        if truncated and size < logits.shape[-1]:
            truncated = _draw_from_top(size, probs, rules, truncated, tokens)
    if truncated:
        part, part_rules = probs[truncated], rules.select(truncated)
        least = part_rules.least_probability(part.sort(dim=-1, descending=True).values, complete=True)
        tokens[truncated] = draw_indices(part.where(part >= least, 0), part_rules.drawn)
    tokens[probs[:, :1].isnan()] = -1  # softmax spreads it over the row
    ids: list[int] = tokens[:, 0].tolist()
    return ids


def _draw_from_top(
    size: int, probs: torch.Tensor, rules: SamplingRules, rows: list[int], tokens: torch.Tensor
) -> list[int]:
    """Draws for rows whose `size` likeliest tokens hold all that the rules keep; returns the rows that need more."""
    part_rules = rules.select(rows)
    values, ids = probs[rows].topk(size, dim=-1)
    least = part_rules.least_probability(values, complete=False)
    kept = values.where(values >= least, 0)
    ids, order = ids.sort(dim=-1)  # in the vocabulary's order, so that the order of ties changes nothing
    tokens[rows] = ids.gather(-1, draw_indices(kept.gather(-1, order), part_rules.drawn))
    last = values[:, -1:]
    enough: list[bool] = ((last < least) | (last == 0))[:, 0].tolist()
    return [row for row, done in zip(rows, enough, strict=True) if not done]


def draw_indices(weights: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Index at which the running sum of weights [rows, n] reaches the drawn share [rows, 1] of the total; [rows, 1].

    As the share is above 0, a weight of 0 is never chosen.
    """
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(sums, drawn * sums[:, -1:]).clamp(max=weights.shape[-1] - 1)
