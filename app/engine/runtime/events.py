"""The engine's events to the supervisor, one JSON object a line."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence

from app.contract.codec import dump_line
from app.contract.status import BEAT_SECONDS, Beat, EngineEvent, Loading, ProofStep, StepProgress

PROGRESS_SECONDS = 0.1
"""Shortest time between two `Loading` events, except the first two and the last."""
STEP_SECONDS = 0.25
"""The same of two `ProofStep` events, except the last."""
RECENT_SHARE = 0.1
"""The time left follows from the last steps, as many as make up this share of the work."""


class EventWriter:
    """Writes events to an inherited descriptor; safe from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, event: EngineEvent) -> None:
        """Writes one line. Errors are ignored: if the supervisor is gone, the lifeline ends this process."""
        line = dump_line(event)
        with self._lock, contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]


class Heartbeat:
    """Reports between two steps that the engine goes on and how fast, seldom enough to cost nothing."""

    def __init__(self, events: EventWriter, tokens_per_second: Callable[[], float | None]) -> None:
        self._events = events
        self._tokens_per_second = tokens_per_second
        self._sent_at = time.monotonic()

    def beat(self) -> None:
        """Call it often, from the thread that runs the model and from no other: it shows that this thread goes on."""
        now = time.monotonic()
        if now - self._sent_at >= BEAT_SECONDS:
            self._sent_at = now
            self._events.send(Beat(self._tokens_per_second()))


class LoadProgress:
    """Turns a count of checkpoint bytes into `Loading` events: 0 first, the total last, some between."""

    def __init__(self, events: EventWriter, total_bytes: int) -> None:
        self._events = events
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._sent_at = time.monotonic()
        events.send(Loading(0, total_bytes))

    def add(self, count: int) -> None:
        """Counts bytes that have been read."""
        before = self._done_bytes
        self._done_bytes += count
        now = time.monotonic()
        # The first and the last at once: what delays the engine before and after them is not the disk.
        if not before or self._done_bytes >= self._total_bytes or now - self._sent_at >= PROGRESS_SECONDS:
            self._sent_at = now
            self._events.send(Loading(self._done_bytes, self._total_bytes))

    def finish(self) -> None:
        """Reports that everything is read."""
        if self._done_bytes < self._total_bytes:
            self._events.send(Loading(self._total_bytes, self._total_bytes))


class ProofProgress:
    """Turns the ends of the proof's steps into `ProofStep` events, with the time left."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events
        self._costs: tuple[float, ...] = ()
        self._seconds: list[float] = []
        """How long each step took that is done."""
        self._done_at = self._sent_at = 0.0

    def begin(self, costs: Sequence[float]) -> None:
        """The proof begins: what each of its steps costs, in any unit."""
        self._costs = tuple(costs)
        self._done_at = self._sent_at = time.monotonic()
        self._send()

    def step_done(self) -> None:
        """The next step is done."""
        now = time.monotonic()
        self._seconds.append(now - self._done_at)
        self._done_at = now
        if len(self._seconds) == len(self._costs) or now - self._sent_at >= STEP_SECONDS:
            self._sent_at = now
            self._send()

    def _send(self) -> None:
        done = len(self._seconds)
        share = sum(self._costs[:done]) / sum(self._costs)
        self._events.send(ProofStep(StepProgress(done, len(self._costs), share, self._seconds_left())))

    def _seconds_left(self) -> float | None:
        """By the pace of the last steps: kinds of steps differ in it, and most of the same kind follow each other."""
        recent_cost = recent_seconds = 0.0
        for cost, seconds in zip(reversed(self._costs[: len(self._seconds)]), reversed(self._seconds), strict=True):
            recent_cost, recent_seconds = recent_cost + cost, recent_seconds + seconds
            if recent_cost >= RECENT_SHARE * sum(self._costs):
                return sum(self._costs[len(self._seconds) :]) * recent_seconds / recent_cost
        return None
