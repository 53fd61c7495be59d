"""Replies from the engine's thread to a connection: never blocks the first, wakes the second only if it has to."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque

from app.contract.codec import dump_line
from app.contract.wire import Delta, Failed, Finished, Reply


class Outbox:
    """A mailbox that sends at once what the socket takes, and has a descriptor to poll for what waits.

    The connection's thread drains it and sends. While nothing waits, a delta is sent by the thread that puts it: with
    32 streams, waking another thread for each token took half of a token's time outside the model. Log probabilities
    are left to the connection's thread: they are many numbers, and JSON may have no form for some.

    Waiting deltas of one kind are joined, so that a slow reader costs no more memory than one answer's text.
    """

    def __init__(self, connection: socket.socket) -> None:
        """`connection` has a timeout or does not block; it stays open until the outbox is closed."""
        self._lock = threading.Lock()
        self._connection = connection
        self._replies: deque[Reply] = deque()
        self._rest = b""
        """The rest of a line that was sent in part; it goes before the replies."""
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._direct = False
        """Nothing waits, and the connection's thread is not sending."""
        self._closed = False

    def fileno(self) -> int:
        """A descriptor that is readable if something waits."""
        return self._event

    def put(self, reply: Reply) -> None:
        """Sends or queues a reply; drops it if the outbox is closed."""
        with self._lock:
            if self._closed:
                return
            if self._direct and isinstance(reply, Delta) and not reply.logprobs:
                self._rest = self._send(dump_line(reply))
                if not self._rest:
                    return
            else:
                self._append(reply)
            self._direct = False
            os.eventfd_write(self._event, 1)

    def drain(self) -> tuple[bytes, bool]:
        """All waiting lines, which the caller sends before it calls again, and whether they end with the last reply.

        After a call that returns none, deltas are sent directly until one has to wait.
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
        """Closes the outbox; its content is lost."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._event)

    def _send(self, line: bytes) -> bytes:
        """Returns what the socket did not take. The connection's thread notices if the other end is gone."""
        try:
            return line[os.write(self._connection.fileno(), line) :]
        except OSError:
            return line

    def _append(self, reply: Reply) -> None:
        last = self._replies[-1] if self._replies else None
        if isinstance(reply, Delta) and isinstance(last, Delta) and (joined := _join(last, reply)):
            self._replies[-1] = joined
        else:
            self._replies.append(reply)


def _join(first: Delta, second: Delta) -> Delta | None:
    """Both as one; None if they are of different kinds, whose order would be lost."""
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
