"""The seam between chat and model: tokens in, tokens out. Formats, admission, limits and the wire stay outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.engine.sampling import Sampling

MOST_LOGPROBS = 20
"""Of one place, as at OpenAI."""


@dataclass(frozen=True)
class TokenRequest:
    """One sequence to be continued."""

    prompt_ids: tuple[int, ...]
    """1 to `max_model_len` - 1 ids below the vocabulary's size."""
    sampling: Sampling
    openings: tuple[tuple[int, ...], ...] = ()
    """The new tokens begin with one of these, whichever the model finds likeliest; where there are none it is free."""
    logprobs: int | None = None
    """With each token its log probability, and those of so many of the likeliest; None is off."""


@dataclass(frozen=True)
class Logprobs:
    """Natural logarithms of probabilities at one place: the model's own, before temperature, penalties and openings."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """Ids with theirs, the likeliest first."""


@dataclass(frozen=True)
class NewToken:
    """What a step gave one sequence."""

    slot: int
    token: int | Exception
    """Or why this sequence cannot go on, `NonFiniteLogits` for one; others can."""
    logprobs: Logprobs | None = None
    """Where the request asked for them."""


@dataclass
class Counters:
    """What a backend has done since its start; written by the engine's thread, read by any."""

    decode_steps: int = 0
    decoded_tokens: int = 0
    """Over `decode_steps` this is the mean batch size."""
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens that were found in the cache."""


class Backend(Protocol):
    """Runs the model for up to `slots` sequences at once; every method is called from one thread, the engine's."""

    max_model_len: int
    slots: int
    counters: Counters

    def start(self, request: TokenRequest) -> int:
        """Takes a sequence in and returns its slot. At most `slots` of them run at once: the caller keeps count."""

    def step(self) -> Sequence[NewToken]:
        """A part of a prompt, or one token for each sequence whose prompt is done. Without sequences it does nothing.

        A sequence goes on until `stop`; the caller stops it at the latest when its context is full, and when it failed.

        Raises:
            RuntimeError: what ends the engine (see `is_memory_error`, `is_broken_device`).
        """

    def stop(self, slot: int) -> None:
        """Lets go of a sequence; its slot is free."""

    def cache_tokens(self) -> int:
        """Tokens of running sequences that lie in the cache; the one method that any thread may call."""

    def prove(self) -> None:
        """Runs the steps that take the most memory: nothing that is asked of `step` takes more.

        Raises:
            NonFiniteLogits: the model breaks down.
        """
