"""How many prompt tokens are computed at a time while answers run."""

from __future__ import annotations

GAP_SECONDS = 0.2
GAP_STEPS = 3.0
"""The next token of an answer takes at most `GAP_SECONDS`, or as long as this many steps without a prompt if that is
longer: if a step alone is slow, small chunks save little and cost much."""
MIN_TOKENS = 32
"""Prompt tokens in a pass, however long they take."""
NEWEST_WEIGHT = 0.3
"""Weight of the newest measurement in the moving averages."""


class PrefillBudget:
    """Learns from each forward pass what it costs, and says how many prompt tokens the next one may take."""

    def __init__(self, max_tokens: int) -> None:
        """At most `max_tokens` prompt tokens may be computed at once."""
        self._max_tokens = max_tokens
        self._step_seconds = 0.0
        self._token_seconds = 0.0

    def record_pass(self, seconds: float, answers: int, prompt_tokens: int) -> None:
        """Records a pass that computed so many answers' tokens and prompt tokens."""
        if not prompt_tokens:
            self._step_seconds = _moving_average(self._step_seconds, seconds)
        else:
            prompt_seconds = max(seconds - (self._step_seconds if answers else 0.0), 0.0)
            self._token_seconds = _moving_average(self._token_seconds, prompt_seconds / prompt_tokens)

    @property
    def max_gap_seconds(self) -> float:
        """How long running answers may wait for their next tokens."""
        return max(GAP_SECONDS, GAP_STEPS * self._step_seconds)

    def next_tokens(self, running: bool) -> int:
        """Prompt tokens that the next pass may take, given whether answers are running."""
        if not running or not self._token_seconds:
            return self._max_tokens
        fitting = int((self.max_gap_seconds - self._step_seconds) / self._token_seconds)
        return max(min(MIN_TOKENS, self._max_tokens), min(self._max_tokens, fitting))


def _moving_average(before: float, now: float) -> float:
    return before + NEWEST_WEIGHT * (now - before) if before else now
