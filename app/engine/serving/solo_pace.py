"""How fast an answer is written while no other runs."""

from __future__ import annotations

from collections import deque

FEWEST_STEPS = 32
"""Fewer say little: the first ones after the start are slower."""
LAST_STEPS = 256


class SoloPace:
    """The time from token to token of answers that run alone. One thread calls it."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LAST_STEPS)
        self._answer: object = None
        self._at = 0.0

    def note_step(self, answer: object, now: float) -> None:
        """A step has ended at `now` (seconds, monotonic) that gave one token to `answer`, which runs alone.

        `answer` is None for any other step. An answer's first token counts for nothing: its prompt came before it.
        """
        if answer is not None and answer is self._answer:
            self._seconds.append(now - self._at)
        self._answer, self._at = answer, now

    def tokens_per_second(self) -> float | None:
        """By the median of the last steps; None until there were enough."""
        if len(self._seconds) < FEWEST_STEPS:
            return None
        median = sorted(self._seconds)[len(self._seconds) // 2]
        return 1 / max(median, 1e-9)
