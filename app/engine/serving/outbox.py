"""Replies between the engine's thread and a connection: never blocks the one, wakes the other where it must."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque

from app.contract.codec import dump_line
from app.contract.wire import Delta, Failed, Finished, Reply


class Outbox:
    """A mailbox that sends what the socket takes at once, and has a descriptor to poll for what waits.

    The connection's thread takes and sends what waits. While nothing does, a delta goes out from the thread that puts
    it: with 32 streams, to wake another thread for each token was half of what a token took outside the model. Log
    probabilities are left to the connection's thread: they are many numbers, and some may be none that JSON has.

    Deltas of one kind that wait are joined, so that a slow reader costs the length of one answer's text.
    """

    def __init__(self, connection: socket.socket) -> None:
        """`connection` has a timeout or does not block; it stays open until the box is closed."""
        self._lock = threading.Lock()
        self._connection = connection
        self._replies: deque[Reply] = deque()
        self._rest = b""
        """Of a line whose beginning was sent; goes before the replies."""
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._direct = False
        """Nothing waits, nor does the connection's thread send anything."""
        self._closed = False

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._event

    def put(self, reply: Reply) -> None:
        """Sends or adds a reply; dropped once the reader has closed the box."""
        with self._lock:
            if self._closed:
                return
            if self._direct and isinstance(reply, Delta) and not reply.logprobs:
                self._rest = self._send(dump_line(reply))
                if not self._rest:
                    return
            else:
                self._add(reply)
            self._direct = False
            os.eventfd_write(self._event, 1)

    def take(self) -> tuple[bytes, bool]:
        """All lines that wait, which the caller sends before it asks again, and whether they are the last ones.

        Once nothing has waited, deltas are sent at once until one has to wait.
        """
        with self._lock:
            if self._closed:
                return b"", False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)
            rest, self._rest = self._rest, b""
            replies, self._replies = self._replies, deque()
            self._direct = not (rest or replies)
        over = bool(replies) and isinstance(replies[-1], (Finished, Failed))
        return rest + b"".join(dump_line(reply) for reply in replies), over

    def close(self) -> None:
        """Ends the box; what is in it is lost."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._event)

    def _send(self, line: bytes) -> bytes:
        """Returns what the socket did not take; whether its other end is gone is seen by the connection's thread."""
        try:
            return line[os.write(self._connection.fileno(), line) :]
        except OSError:
            return line

    def _add(self, reply: Reply) -> None:
        last = self._replies[-1] if self._replies else None
        if isinstance(reply, Delta) and isinstance(last, Delta) and (joined := _join(last, reply)):
            self._replies[-1] = joined
        else:
            self._replies.append(reply)


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
