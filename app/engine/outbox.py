"""Replies between the engine's thread and a connection's: never blocks the one, wakes the other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque

from app.contract.wire import Delta, Reply


class Outbox:
    """A mailbox with a descriptor to poll.

    Deltas of one kind that the reader has not fetched are joined, so that a slow reader costs the length of one
    answer's text.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replies: deque[Reply] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._event

    def put(self, reply: Reply) -> None:
        """Adds a reply; dropped once the reader has closed the box."""
        with self._lock:
            if self._closed:
                return
            last = self._replies[-1] if self._replies else None
            if isinstance(reply, Delta) and isinstance(last, Delta) and (joined := _join(last, reply)):
                self._replies[-1] = joined
            else:
                self._replies.append(reply)
            os.eventfd_write(self._event, 1)

    def take(self) -> tuple[Reply, ...]:
        """Everything there is, in order."""
        with self._lock:
            if self._closed:
                return ()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)
            replies = tuple(self._replies)
            self._replies.clear()
            return replies

    def close(self) -> None:
        """Ends the box; what is in it is lost."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._event)


def _join(first: Delta, second: Delta) -> Delta | None:
    """Both as one; None where they are of two kinds, whose order would be lost."""
    kinds = {(bool(delta.text), bool(delta.reasoning), bool(delta.tool_calls)) for delta in (first, second)}
    if len(kinds) > 1:
        return None
    return Delta(
        first.text + second.text,
        first.tokens + second.tokens,
        first.reasoning + second.reasoning,
        first.tool_calls + second.tool_calls,
        first.logprobs + second.logprobs,
    )
