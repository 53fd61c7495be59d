"""The interface between chat and model: tokens in, tokens out. Chat formats, admission and the wire stay outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.engine.sampling import Sampling

READ_ROWS = 16
"""Reading the weights takes a forward pass about as long as computing so many rows: 12 to 20 on CPUs."""


def pass_cost(rows: float) -> float:
    """What a forward pass costs, in rows."""
    return rows + READ_ROWS


def no_report() -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class TokenRequest:
    """One sequence to continue."""

    prompt_ids: tuple[int, ...]
    """1 to `max_model_len` - 1 ids, each below the vocabulary's size."""
    sampling: Sampling
    required_prefixes: tuple[tuple[int, ...], ...] = ()
    """The answer begins with one of these, the one that the model finds likeliest; empty if it may begin freely."""
    logprobs: int | None = None
    """Return each token's log probability and this many alternatives; None is off, 0 the token's alone."""


@dataclass(frozen=True)
class Logprobs:
    """Natural logarithms of probabilities at one position: the model's own, before temperature, penalties, prefixes."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """Ids with their log probabilities, the likeliest first."""


@dataclass(frozen=True)
class NewToken:
    """The token that a step gave one sequence."""

    slot: int
    token: int | Exception
    """Or the reason why this sequence cannot go on, such as `NonFiniteLogits`; the others can."""
    logprobs: Logprobs | None = None
    """None if the request did not ask for them."""


@dataclass
class Counters:
    """What a backend has done since it started. The engine's thread writes it, any thread may read it."""

    decode_steps: int = 0
    decoded_tokens: int = 0
    """Divided by `decode_steps`, this is the mean batch size."""
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were in the cache already."""


class Backend(Protocol):
    """Runs the model for up to `slots` sequences at once. Only the engine's thread calls it, except `cache_tokens`."""

    max_model_len: int
    slots: int
    counters: Counters

    def add_request(self, request: TokenRequest) -> int:
        """Adds a sequence and returns its slot. The caller keeps count: at most `slots` sequences run at once."""

    def step(self) -> Sequence[NewToken]:
        """Computes part of a prompt, or one token of each sequence whose prompt is done. Idle, it does nothing.

        A sequence goes on until `finish_request`. The caller finishes it when it fails, and at the latest when its
        context is full.

        Raises:
            RuntimeError: an error that ends the engine (see `is_memory_error`, `is_broken_device`).
        """

    def finish_request(self, slot: int) -> None:
        """Removes a sequence and frees its slot."""

    def cache_tokens(self) -> int:
        """Tokens of running sequences in the cache. Any thread may call it."""

    def profile_costs(self) -> Sequence[float]:
        """What each step of `profile_run` costs, in rows of a forward pass."""

    def profile_run(self, step_done: Callable[[], None] = no_report) -> None:
        """Runs the steps that take the most memory: no later `step` takes more. Calls `step_done` after each.

        Raises:
            NonFiniteLogits: the model's output is not finite.
        """
