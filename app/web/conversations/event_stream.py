"""Streams an answer to its readers while it is written: server-sent events, one thread for each reader."""

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
_POLL_SECONDS = 0.5
"""How often a waiting reader checks that its client is still connected."""
_DISCONNECTED = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class EventStreamLimit:
    """Limits the readers, so that threads are left for chats over /v1.

    Each reader takes one of `limit` places here and one of the threads that may wait for the engine.
    """

    def __init__(self, waiting: threading.BoundedSemaphore, limit: int) -> None:
        self._waiting = waiting
        self._readers = threading.BoundedSemaphore(limit)

    def acquire(self) -> None:
        """Takes a place for one reader. Raises a 429 if none is free."""
        if not self._readers.acquire(blocking=False):
            raise _too_many()
        if not self._waiting.acquire(blocking=False):
            self._readers.release()
            raise _too_many()

    def release(self) -> None:
        """Frees the place of one reader."""
        self._waiting.release()
        self._readers.release()


def events(turn: RunningTurn, after: int, client: socket.socket | None) -> Iterator[bytes]:
    """The events after number `after`, until the answer has ended or the client has disconnected."""
    yield KEEP_ALIVE
    last_sent = time.monotonic()
    while True:
        new = turn.after(after, _POLL_SECONDS)
        if new is not None:
            after, last_sent = new.seq, time.monotonic()
            yield encode_event(new)
            if new.message is not None and new.message.state != "writing":
                return
        elif _has_disconnected(client):
            return
        elif time.monotonic() >= last_sent + _HEARTBEAT_SECONDS:
            last_sent = time.monotonic()
            yield KEEP_ALIVE


def encode_event(turn_event: TurnEvent) -> bytes:
    """A server-sent event whose id is the event's number."""
    return b"id: %d\n" % turn_event.seq + event(to_json(turn_event))


def _has_disconnected(client: socket.socket | None) -> bool:
    if client is None:
        return False
    poll = select.poll()
    poll.register(client, _DISCONNECTED)
    return bool(poll.poll(0))


def _too_many() -> ApiError:
    message = "Too many pages are reading answers at the same time."
    return ApiError(429, message, "too_many_readers", retry_after_seconds=2)
