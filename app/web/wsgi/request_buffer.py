"""A request's bytes before a thread is spent on it: a client that sends one now and then costs memory, not a thread."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from gunicorn.http.unreader import SocketUnreader

HEAD_BYTES = 64 * 1024
"""Request line and headers; more is no request that Berth could answer."""
BODY_BYTES = 64 * 1024
"""A body up to this is waited for on the loop; a larger one is read by the thread that has let its sender in."""
GATHER_SECONDS = 15.0
"""For the head, and for a small body with it."""
BODY_SECONDS = 60.0
"""For what a thread reads: 4 MiB within it are 70 KB/s."""

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_ASKS_FIRST = re.compile(rb"\r\n(?:expect|transfer-encoding):", re.IGNORECASE)
"""The rest comes only after an answer, or has no length that could be waited for."""


class Gathered:
    """What has come of one request, and of what was sent right behind it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._whole_at: int | None = None

    def __bool__(self) -> bool:
        return bool(self._data)

    def add(self, data: bytes) -> None:
        """Takes in what the socket had."""
        searched = max(0, len(self._data) - len(_END) + 1)
        self._data += data
        if self._whole_at is None and (end := self._data.find(_END, searched)) >= 0:
            self._whole_at = self._end_of(end + len(_END))

    @property
    def is_whole(self) -> bool:
        """Whether a thread has no need to wait, or may."""
        return self._whole_at is not None and len(self._data) >= self._whole_at

    @property
    def is_too_long(self) -> bool:
        """Whether the headers don't come to an end."""
        return self._whole_at is None and len(self._data) > HEAD_BYTES

    def take(self) -> bytes:
        """Hands over everything; the next request begins."""
        data = bytes(self._data)
        self._data.clear()
        self._whole_at = None
        return data

    def _end_of(self, body_at: int) -> int:
        head = bytes(self._data[:body_at])
        lengths = _LENGTH.findall(head)
        if len(lengths) != 1 or _ASKS_FIRST.search(head) or int(lengths[0]) > BODY_BYTES:
            return body_at
        return body_at + int(lengths[0])


class TimedUnreader(SocketUnreader):  # type: ignore[misc]
    """gunicorn's way to a connection's bytes, with an end to its patience: OSError where a body takes too long."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._deadline = 0.0

    def begin(self, gathered: bytes) -> None:
        """A request begins with what was gathered of it."""
        self._deadline = time.monotonic() + BODY_SECONDS
        self.unread(gathered)

    def chunk(self, size_hint: Any = None) -> bytes:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the body takes too long")
        before = self.sock.gettimeout()
        self.sock.settimeout(left if before is None else min(left, before))
        try:
            return bytes(super().chunk(size_hint))
        finally:
            self.sock.settimeout(before)
