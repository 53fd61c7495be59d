"""Buffers a request before a thread handles it, so that a slow client costs memory and not a thread."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from gunicorn.http.unreader import SocketUnreader

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers. Berth has no request with more."""
MAX_BODY_BYTES = 64 * 1024
"""A body up to this size is buffered on the loop. A thread reads a larger one, after the access check."""
BUFFER_SECONDS = 15.0
"""For the head, and for a small body with it."""
BODY_SECONDS = 60.0
"""For a body that a thread reads: 4 MiB in this time are 70 KB/s."""

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_NOT_BUFFERED = re.compile(rb"\r\n(?:expect|transfer-encoding):", re.IGNORECASE)
"""Such a body comes only after a response, or has no length to wait for."""


class RequestBuffer:
    """The bytes received of one request, and of what was sent right after it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._complete_at: int | None = None
        """Length of the head and of a small body with it; None until the head is complete."""

    def __bool__(self) -> bool:
        return bool(self._data)

    def add(self, data: bytes) -> None:
        """Adds received bytes."""
        searched = max(0, len(self._data) - len(_END) + 1)
        self._data += data
        if self._complete_at is None and (end := self._data.find(_END, searched)) >= 0:
            self._complete_at = self._request_length(end + len(_END))

    @property
    def is_complete(self) -> bool:
        """Whether a thread can handle the request; it may still have to read a large body."""
        return self._complete_at is not None and len(self._data) >= self._complete_at

    @property
    def is_too_long(self) -> bool:
        """Whether the head is longer than MAX_HEAD_BYTES."""
        return self._complete_at is None and len(self._data) > MAX_HEAD_BYTES

    def pop_all(self) -> bytes:
        """Removes and returns all bytes. The next request begins."""
        data = bytes(self._data)
        self._data.clear()
        self._complete_at = None
        return data

    def _request_length(self, head_length: int) -> int:
        head = bytes(self._data[:head_length])
        lengths = _LENGTH.findall(head)
        if len(lengths) != 1 or _NOT_BUFFERED.search(head) or int(lengths[0]) > MAX_BODY_BYTES:
            return head_length
        return head_length + int(lengths[0])


class TimedUnreader(SocketUnreader):  # type: ignore[misc]
    """gunicorn's reader of a connection, with a deadline for each request. Raises TimeoutError after it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._deadline = 0.0

    def begin(self, buffered: bytes) -> None:
        """Begins a request with the bytes that were buffered."""
        self._deadline = time.monotonic() + BODY_SECONDS
        self.unread(buffered)

    def chunk(self, size_hint: Any = None) -> bytes:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the body takes too long")
        before = self.sock.gettimeout()
        self.sock.settimeout(remaining if before is None else min(remaining, before))
        try:
            return bytes(super().chunk(size_hint))
        finally:
            self.sock.settimeout(before)
