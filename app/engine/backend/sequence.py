"""One sequence of a batch: how it is sampled, its random numbers, its penalties and required openings."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from app.engine.backend.interface import TokenRequest
from app.engine.sampling import Sampling


class Openings:
    """Where an answer stands in the openings that it must begin with."""

    def __init__(self, openings: tuple[tuple[int, ...], ...]) -> None:
        self._open = openings
        self._taken = 0

    def allowed(self) -> tuple[int, ...]:
        """The ids that may come next; empty where all may: an opening is complete, or there are none."""
        if any(len(opening) == self._taken for opening in self._open):
            return ()
        return tuple(sorted({opening[self._taken] for opening in self._open}))

    def take(self, token: int) -> None:
        """Goes on by the token that was picked, one of the allowed."""
        if self.allowed():
            self._open = tuple(opening for opening in self._open if opening[self._taken] == token)
            self._taken += 1


class Sampler:
    """One sequence's state: how it is sampled, its random numbers, and what it has said."""

    def __init__(self, request: TokenRequest) -> None:
        self.sampling = request.sampling
        self.logprobs = request.logprobs
        self._random = random.Random(request.sampling.seed)
        self._openings = Openings(request.openings)
        self._penalties = Penalties(self.sampling, request.prompt_ids) if self.sampling.has_penalties else None

    def draw(self) -> float:
        """The next random number, above 0 and at most 1."""
        return 1.0 - self._random.random()

    def prepare(self, row: torch.Tensor) -> None:
        """Changes logits [vocab] in place: penalties, and nothing but what an opening allows."""
        if self._penalties is not None:
            self._penalties.apply(row)
        if allowed := self._openings.allowed():
            ids = list(allowed)
            free = row[ids]
            row.fill_(-torch.inf)
            row[ids] = free

    def take(self, token: int) -> None:
        """Goes on by the token that was picked."""
        self._openings.take(token)
        if self._penalties is not None:
            self._penalties.take(token)


class Penalties:
    """The tokens that count against being said again, and how often each was said."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self._sampling = sampling
        self._repetition = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))
        self._prompt = sorted(set(prompt_ids)) if sampling.repetition_penalty != 1 else []
        self._said: dict[int, int] = {}

    def apply(self, row: torch.Tensor) -> None:
        """Changes logits [vocab] in place."""
        if self._sampling.repetition_penalty != 1:
            seen = torch.tensor([*self._prompt, *self._said], dtype=torch.long, device=row.device)
            row.copy_(self._repetition(seen[None], row[None])[0])
        if self._said and (self._sampling.presence_penalty or self._sampling.frequency_penalty):
            said = torch.tensor(list(self._said), dtype=torch.long, device=row.device)
            counts = torch.tensor(list(self._said.values()), dtype=row.dtype, device=row.device)
            row[said] -= counts * self._sampling.frequency_penalty + self._sampling.presence_penalty

    def take(self, token: int) -> None:
        """Counts a token of the answer."""
        self._said[token] = self._said.get(token, 0) + 1
