"""Stopping: until when a running answer may go on once the worker was told to end, and what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MARGIN_SECONDS = 0.5
"""What is left of the drain time for the last error event to reach the client."""

_deadline: float | None = None
_lock = threading.Lock()
_working = 0


def begin(seconds: float) -> None:
    """Called from the worker's signal handler, so it does no more than assign."""
    global _deadline
    _deadline = time.monotonic() + max(seconds - _MARGIN_SECONDS, seconds / 2)


def has_begun() -> bool:
    """Whether nothing new is to be taken in."""
    return _deadline is not None


def is_over() -> bool:
    """Whether running answers have to end now."""
    return _deadline is not None and time.monotonic() >= _deadline


@contextmanager
def work() -> Iterator[None]:
    """Around what the worker's end waits for although no connection does: it should watch `is_over`."""
    global _working
    with _lock:
        _working += 1
    try:
        yield
    finally:
        with _lock:
            _working -= 1


def is_working() -> bool:
    """Whether any `work` is under way."""
    return _working > 0
