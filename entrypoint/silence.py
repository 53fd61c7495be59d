"""The watchdog's clock: how long nothing was heard of an engine that says every few seconds that it goes on."""

from __future__ import annotations

LEAST_SECONDS = 60.0
"""A machine that swaps, or that others keep busy, may take so long for a step that usually takes one second."""
PROOFS = 10.0
"""The proof holds the longest step there is, a full chunk at the end of the context: so many times its time are enough
on a machine that has become slower since."""
LONGEST_LOOK_SECONDS = 1.0


class Silence:
    """Counts the time in which this process listened and heard nothing.

    Listening is what counts: where the whole container was stopped or the machine slept, nobody was silent.
    """

    def __init__(self, proof_seconds: float) -> None:
        self.limit_seconds = max(LEAST_SECONDS, PROOFS * proof_seconds)
        self.seconds = 0.0
        self._looked_at: float | None = None

    def heard(self) -> None:
        """The engine said something."""
        self.seconds = 0.0

    def is_over(self, now: float) -> bool:
        """Whether it has lasted too long; `now` in seconds of a monotonic clock, asked several times a second."""
        if self._looked_at is not None:
            self.seconds += min(now - self._looked_at, LONGEST_LOOK_SECONDS)
        self._looked_at = now
        return self.seconds > self.limit_seconds
