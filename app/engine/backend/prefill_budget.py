"""How much of the prompts is computed at a time while answers run."""

from __future__ import annotations

GAP_SECONDS = 0.2
GAP_STEPS = 3.0
"""An answer's next token takes at most `GAP_SECONDS`, or as long as so many steps without a prompt, where that is more:
where a step alone takes long, little can be saved by small parts, and much is lost."""
LEAST = 32
"""Tokens of prompts in a pass, however long they take."""
LATEST = 0.3
"""Weight of the newest measurement."""


class Pace:
    """Learns from the passes what one costs, and tells how many prompt tokens the next may take."""

    def __init__(self, most: int) -> None:
        """`most` tokens of prompts may be computed at once."""
        self._most = most
        self._step_seconds = 0.0
        self._token_seconds = 0.0

    def note(self, seconds: float, answers: int, prompt_tokens: int) -> None:
        """A pass with so many running answers and prompt tokens has ended."""
        if not prompt_tokens:
            self._step_seconds = _blend(self._step_seconds, seconds)
        else:
            alone = max(seconds - (self._step_seconds if answers else 0.0), 0.0)
            self._token_seconds = _blend(self._token_seconds, alone / prompt_tokens)

    @property
    def gap_seconds(self) -> float:
        """How long running answers may wait for their next tokens."""
        return max(GAP_SECONDS, GAP_STEPS * self._step_seconds)

    def room(self, running: bool) -> int:
        """Prompt tokens that the next pass may take, where answers are running or not."""
        if not running or not self._token_seconds:
            return self._most
        fitting = int((self.gap_seconds - self._step_seconds) / self._token_seconds)
        return max(min(LEAST, self._most), min(self._most, fitting))


def _blend(before: float, now: float) -> float:
    return before + LATEST * (now - before) if before else now
