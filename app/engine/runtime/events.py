"""The progress pipe: what the engine tells the supervisor, one JSON object a line."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from app.contract.codec import dump_line
from app.contract.status import BEAT_SECONDS, Beat, EngineEvent, Loading

PROGRESS_SECONDS = 0.1
"""Shortest time between two `Loading` events, the first and the last excepted."""


class EventPipe:
    """Writes events to an inherited descriptor; safe from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, event: EngineEvent) -> None:
        """Writes one line. A supervisor that is gone is the lifeline's business, so errors are ignored here."""
        line = dump_line(event)
        with self._lock, contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]


class Heart:
    """Says between two steps that the engine goes on, seldom enough to cost nothing."""

    def __init__(self, events: EventPipe) -> None:
        self._events = events
        self._sent_at = time.monotonic()

    def beat(self) -> None:
        """Call it often; only the thread that runs the model may, since its going on is what is told."""
        now = time.monotonic()
        if now - self._sent_at >= BEAT_SECONDS:
            self._sent_at = now
            self._events.send(Beat())


class LoadProgress:
    """Turns a count of checkpoint bytes into `Loading` events: 0 first, the total last, some in between."""

    def __init__(self, events: EventPipe, total_bytes: int) -> None:
        self._events = events
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._sent_at = time.monotonic()
        events.send(Loading(0, total_bytes))

    def add(self, count: int) -> None:
        """Counts bytes that are in place now."""
        self._done_bytes += count
        now = time.monotonic()
        if self._done_bytes < self._total_bytes and now - self._sent_at >= PROGRESS_SECONDS:
            self._sent_at = now
            self._events.send(Loading(self._done_bytes, self._total_bytes))

    def finish(self) -> None:
        """Says that everything is in place."""
        self._events.send(Loading(self._total_bytes, self._total_bytes))
