"""One sequence of a batch: its sampling parameters, random numbers, penalties and required prefixes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from app.engine.backend.interface import TokenRequest
from app.engine.sampling import Sampling


class RequiredPrefixes:
    """How far an answer has come in the prefixes of which it must begin with one."""

    def __init__(self, prefixes: tuple[tuple[int, ...], ...]) -> None:
        self._possible = prefixes
        self._length = 0

    def allowed(self) -> tuple[int, ...]:
        """The ids that may come next; empty if all may, since a prefix is complete or there are none."""
        if any(len(prefix) == self._length for prefix in self._possible):
            return ()
        return tuple(sorted({prefix[self._length] for prefix in self._possible}))

    def advance(self, token: int) -> None:
        """Moves on by the sampled token, one of the allowed."""
        if self.allowed():
            self._possible = tuple(prefix for prefix in self._possible if prefix[self._length] == token)
            self._length += 1


class SamplingState:
    """One sequence's sampling: its parameters, its random numbers, and the tokens it has had."""

    def __init__(self, request: TokenRequest) -> None:
        self.sampling = request.sampling
        self.logprobs = request.logprobs
        self._random = random.Random(request.sampling.seed)
        self._prefixes = RequiredPrefixes(request.required_prefixes)
        self._penalties = Penalties(self.sampling, request.prompt_ids) if self.sampling.has_penalties else None

    def draw(self) -> float:
        """The next random number, above 0 and at most 1."""
        return 1.0 - self._random.random()

    def adjust_logits(self, row: torch.Tensor) -> None:
        """Changes logits [vocab] in place: applies penalties, and excludes ids that no required prefix allows."""
        if self._penalties is not None:
            self._penalties.apply(row)
        if allowed := self._prefixes.allowed():
            ids = list(allowed)
            logits = row[ids]
            row.fill_(-torch.inf)
            row[ids] = logits

    def append_token(self, token: int) -> None:
        """Moves on by the sampled token."""
        self._prefixes.advance(token)
        if self._penalties is not None:
            self._penalties.count_token(token)


class Penalties:
    """The tokens that count against being repeated, and how often each has come."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self._sampling = sampling
        self._repetition = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))
        self._prompt = sorted(set(prompt_ids)) if sampling.repetition_penalty != 1 else []
        self._counts: dict[int, int] = {}
        """Of the answer's tokens, by id."""

    def apply(self, row: torch.Tensor) -> None:
        """Changes logits [vocab] in place."""
        if self._sampling.repetition_penalty != 1:
            ids = torch.tensor([*self._prompt, *self._counts], dtype=torch.long, device=row.device)
            row.copy_(self._repetition(ids[None], row[None])[0])
        if self._counts and (self._sampling.presence_penalty or self._sampling.frequency_penalty):
            ids = torch.tensor(list(self._counts), dtype=torch.long, device=row.device)
            counts = torch.tensor(list(self._counts.values()), dtype=row.dtype, device=row.device)
            row[ids] -= counts * self._sampling.frequency_penalty + self._sampling.presence_penalty

    def count_token(self, token: int) -> None:
        """Counts a token of the answer."""
        self._counts[token] = self._counts.get(token, 0) + 1
