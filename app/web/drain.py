"""The drain: how long running answers may go on after SIGTERM, and the work that a stopping worker waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MARGIN_SECONDS = 0.5
"""Reserved at the end, so that the last error event reaches the client."""

_deadline: float | None = None
_lock = threading.Lock()
_working = 0


def begin(seconds: float) -> None:
    """Starts the drain. The worker's signal handler calls this, so it only assigns."""
    global _deadline
    _deadline = time.monotonic() + max(seconds - _MARGIN_SECONDS, seconds / 2)


def has_begun() -> bool:
    """Whether new requests must be refused."""
    return _deadline is not None


def is_over() -> bool:
    """Whether running answers must end now."""
    return _deadline is not None and time.monotonic() >= _deadline


@contextmanager
def work() -> Iterator[None]:
    """Marks work without a connection that a stopping worker waits for. The work must check `is_over`."""
    global _working
    with _lock:
        _working += 1
    try:
        yield
    finally:
        with _lock:
            _working -= 1


def is_working() -> bool:
    """Whether any `work` is running."""
    return _working > 0
