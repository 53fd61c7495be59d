"""Those who read an answer while it is written: server-sent events, a comment in silence, a thread for each reader."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator

from app.contract.codec import to_json
from app.contract.conversations import TurnEvent
from app.web.conversations.running_turn import RunningTurn
from app.web.http.errors import ApiError
from app.web.http.sse import KEEP_ALIVE, event

_HEARTBEAT_SECONDS = 10.0
_LOOK_SECONDS = 0.5
"""How often a waiting reader looks whether its client is still there."""
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Readers:
    """Lets in at most half of all threads that may wait, so that chats over /v1 find some, too."""

    def __init__(self, waiting: threading.BoundedSemaphore, limit: int) -> None:
        self._waiting = waiting
        self._own = threading.BoundedSemaphore(limit)

    def enter(self) -> None:
        """Raises a 429 where no thread is left for one more; whoever enters leaves."""
        if not self._own.acquire(blocking=False):
            raise _too_many()
        if not self._waiting.acquire(blocking=False):
            self._own.release()
            raise _too_many()

    def leave(self) -> None:
        """The thread is free again."""
        self._waiting.release()
        self._own.release()


def events(turn: RunningTurn, after: int, client: socket.socket | None) -> Iterator[bytes]:
    """What came behind event `after`, and what comes, until the answer stands still or the client has left."""
    yield KEEP_ALIVE
    spoken = time.monotonic()
    while True:
        told = turn.after(after, _LOOK_SECONDS)
        if told is not None:
            after, spoken = told.seq, time.monotonic()
            yield one_event(told)
            if told.message is not None and told.message.state != "writing":
                return
        elif _has_left(client):
            return
        elif time.monotonic() >= spoken + _HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            yield KEEP_ALIVE


def one_event(told: TurnEvent) -> bytes:
    """A server-sent event with its number."""
    return b"id: %d\n" % told.seq + event(to_json(told))


def _has_left(client: socket.socket | None) -> bool:
    if client is None:
        return False
    poll = select.poll()
    poll.register(client, _GONE)
    return bool(poll.poll(0))


def _too_many() -> ApiError:
    message = "Too many pages read answers at the same time."
    return ApiError(429, message, "too_many_readers", retry_after_seconds=2)
