"""Picks the next token of each sequence in a batch from its logits.

The order is transformers' (`GenerationMixin._get_logits_processor`): repetition penalty, then presence and frequency
penalty as OpenAI defines them, temperature, top_k, top_p, min_p. Tokens exactly as likely as the last that a rule
keeps are kept too, so that what is kept never depends on how ties were sorted.

A sequence draws one number a token from a generator of its own, seeded by its seed: what it gets depends on its
logits, its seed and the token's place alone, not on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from app.engine.backend.interface import Logprobs
from app.engine.backend.sequence import Sampler
from app.engine.errors import NonFiniteLogits

PREFIXES = (256, 4096)
"""So many of the likeliest tokens are looked at before all are sorted, which takes some fifty times as long."""
AT_ONCE = 1 << 20
"""Elements of the probabilities that are in work at the same time: bounds the memory, 16 bytes each."""
ALL = 2.0
"""A share that no sum of probabilities reaches, rounding errors included: top_p is off."""


@dataclass(frozen=True)
class Picked:
    """What one row got."""

    token: int | NonFiniteLogits
    logprobs: Logprobs | None = None


def pick(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Picked]:
    """One token a row of float32 logits [rows, vocab], which are changed in place; each sampler goes on by its own.

    Where a row's logits are NaN or infinite its token is `NonFiniteLogits`; the others are picked all the same.
    """
    finite: list[bool] = logits.sum(dim=-1).isfinite().tolist()
    asked = [row for row, sampler in enumerate(samplers) if sampler.logprobs is not None and finite[row]]
    unchanged = logits[asked].log_softmax(dim=-1) if asked else None
    for row, sampler in enumerate(samplers):
        if finite[row]:
            sampler.prepare(logits[row])
    tokens = _pick_ids(logits, samplers, finite)
    logprobs: dict[int, Logprobs] = {}
    if unchanged is not None:
        counts = [samplers[row].logprobs or 0 for row in asked]
        told = read_logprobs(unchanged, [max(0, tokens[row]) for row in asked], counts)
        logprobs = dict(zip(asked, told, strict=True))
    for sampler, token in zip(samplers, tokens, strict=True):
        if token >= 0:
            sampler.take(token)
    return [
        Picked(token, logprobs.get(row)) if token >= 0 else Picked(NonFiniteLogits())
        for row, token in enumerate(tokens)
    ]


def _pick_ids(logits: torch.Tensor, samplers: Sequence[Sampler], finite: Sequence[bool]) -> list[int]:
    """A token a row; -1 where there is none."""
    tokens = [-1] * len(samplers)
    greedy = [row for row, sampler in enumerate(samplers) if finite[row] and sampler.sampling.is_greedy]
    if greedy:
        best: list[int] = logits.argmax(dim=-1).tolist()
        for row in greedy:
            tokens[row] = best[row]
    drawn = [row for row, sampler in enumerate(samplers) if finite[row] and not sampler.sampling.is_greedy]
    step = max(1, AT_ONCE // logits.shape[-1])
    for start in range(0, len(drawn), step):
        rows = drawn[start : start + step]
        for row, token in zip(rows, sample(logits[rows], [samplers[row] for row in rows]), strict=True):
            tokens[row] = token
    return tokens


def read_logprobs(values: torch.Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Logprobs]:
    """Of each row of log probabilities [rows, vocab] the token's, and the `counts` highest."""
    chosen = values.gather(-1, torch.tensor(tokens, device=values.device)[:, None])[:, 0].tolist()
    best = values.topk(min(max(counts), values.shape[-1]), dim=-1)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Logprobs(own, tuple(zip(ids[:count], theirs[:count], strict=True)))
        for own, (ids, theirs), count in zip(chosen, tops, counts, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What each row's draw keeps to, each [rows, 1]."""

    top_k: torch.Tensor
    has_top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    drawn: torch.Tensor
    """Random numbers, above 0 and at most 1."""

    @classmethod
    def read(cls, samplers: Sequence[Sampler], vocab: int, device: torch.device) -> Rules:
        """Those of the samplers, of which each draws its number."""
        how = [sampler.sampling for sampler in samplers]

        def column(values: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        return cls(
            top_k=column([min(one.top_k or vocab, vocab) for one in how], torch.long),
            has_top_k=column([bool(one.top_k) for one in how], torch.bool),
            top_p=column([one.top_p if one.top_p < 1 else ALL for one in how], torch.float64),
            min_p=column([one.min_p for one in how], torch.float32),
            drawn=column([sampler.draw() for sampler in samplers], torch.float64),
        )

    def of(self, rows: Sequence[int]) -> Rules:
        """Those of some rows."""
        return Rules(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def floor(self, values: torch.Tensor, whole: bool) -> torch.Tensor:
        """The least probability that is kept, [rows, 1], told from the likeliest in descending order, [rows, n].

        It is the last of them where a rule may keep more than these; `whole` says that there are no more.
        """
        sums, last = values.cumsum(dim=-1, dtype=torch.float64), values[:, -1:]
        least = values.gather(-1, self.top_k.clamp(max=values.shape[-1]) - 1)
        likely = values >= least
        # Of what top_k leaves, top_p takes its share; where that may reach beyond these, the whole is not known yet.
        known = (last < least) | (last == 0) | whole
        left = sums.gather(-1, _last(likely)).where(known, torch.inf)
        inside = likely & (sums - values < self.top_p * left.where(self.has_top_k, 1))
        return torch.maximum(values.gather(-1, _last(inside)), values[:, :1] * self.min_p)


def _last(chosen: torch.Tensor) -> torch.Tensor:
    """Place of the last true one of rows that begin with all of theirs, [rows, 1]; 0 where there is none (NaN)."""
    return (chosen.sum(dim=-1, keepdim=True) - 1).clamp(min=0)


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """A token drawn for each row of [rows, vocab]; -1 where the row has no distribution."""
    heat = torch.tensor([sampler.sampling.temperature for sampler in samplers], device=logits.device)
    probs = (logits / heat[:, None]).softmax(dim=-1)
    rules = Rules.read(samplers, logits.shape[-1], logits.device)
    tokens = torch.full((len(samplers), 1), -1, device=logits.device)
    cut = [row for row, sampler in enumerate(samplers) if sampler.sampling.keeps_part]
    free = [row for row in range(len(samplers)) if row not in cut]
    if free:
        tokens[free] = choose(probs[free], rules.drawn[free])
    for size in PREFIXES:
        if cut and size < logits.shape[-1]:
            cut = _sample_among(size, probs, rules, cut, tokens)
    if cut:
        part, own = probs[cut], rules.of(cut)
        floor = own.floor(part.sort(dim=-1, descending=True).values, whole=True)
        tokens[cut] = choose(part.where(part >= floor, 0), own.drawn)
    tokens[probs[:, :1].isnan()] = -1  # softmax spreads it over the row
    found: list[int] = tokens[:, 0].tolist()
    return found


def _sample_among(size: int, probs: torch.Tensor, rules: Rules, rows: list[int], tokens: torch.Tensor) -> list[int]:
    """Draws where a row's `size` likeliest tokens hold all that is kept; returns the rows that need more."""
    own = rules.of(rows)
    values, ids = probs[rows].topk(size, dim=-1)
    floor = own.floor(values, whole=False)
    kept = values.where(values >= floor, 0)
    ids, order = ids.sort(dim=-1)  # as they lie in the vocabulary: how ties were sorted changes nothing
    tokens[rows] = ids.gather(-1, choose(kept.gather(-1, order), own.drawn))
    last = values[:, -1:]
    enough: list[bool] = ((last < floor) | (last == 0))[:, 0].tolist()
    return [row for row, done in zip(rows, enough, strict=True) if not done]


def choose(weights: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Where the running sum of weights [rows, n] reaches the drawn share [rows, 1] of the whole; [rows, 1].

    As the share is above 0, a weight of 0 is never chosen.
    """
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(sums, drawn * sums[:, -1:]).clamp(max=weights.shape[-1] - 1)
