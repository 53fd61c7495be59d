"""The engine's events to the supervisor, one JSON object a line."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

from app.contract.codec import dump_line
from app.contract.status import BEAT_SECONDS, Beat, EngineEvent, Loading

PROGRESS_SECONDS = 0.1
"""Shortest time between two `Loading` events, except the first and the last."""


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
        """Counts bytes that have been loaded."""
        self._done_bytes += count
        now = time.monotonic()
        if self._done_bytes < self._total_bytes and now - self._sent_at >= PROGRESS_SECONDS:
            self._sent_at = now
            self._events.send(Loading(self._done_bytes, self._total_bytes))

    def finish(self) -> None:
        """Reports that everything is loaded."""
        self._events.send(Loading(self._total_bytes, self._total_bytes))
