"""A connection of the engine's socket: reads one line, sends replies, and watches whether the client is still there."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from app.contract.codec import dump_line
from app.contract.wire import LINE_LIMIT_BYTES, Failed, Reply
from app.engine.errors import RequestError
from app.engine.serving.outbox import Outbox

REQUEST_SECONDS = 30.0
"""Longest time a client may take to send its line."""
SEND_SECONDS = 30.0
"""Longest time a client may leave its socket full; then it counts as gone. The web service gives up its own clients
earlier, and closes the connection."""
DISCARD_SECONDS = 2.0
"""How long the rest of a refused line is read and dropped: closing with unread data would cut off the reply."""
READ_BYTES = 1 << 16


class ClientGone(Exception):
    """The client closed its connection, or stopped reading."""


def read_line(connection: socket.socket) -> bytes:
    """The request's line, without its newline.

    Raises:
        RequestError: the line is longer than `LINE_LIMIT_BYTES`, or does not come in time.
        ClientGone: the connection ended before the line did.
    """
    line = bytearray()
    deadline = time.monotonic() + REQUEST_SECONDS
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([connection], [], [], left)[0]:
            raise RequestError(Failed(408, "request_timeout", f"no request within {REQUEST_SECONDS:g} s"))
        try:
            data = connection.recv(READ_BYTES)
        except OSError as error:
            raise ClientGone from error
        if not data:
            raise ClientGone
        head, newline, _ = data.partition(b"\n")
        line += head
        if len(line) > LINE_LIMIT_BYTES:
            text = f"the request is longer than {LINE_LIMIT_BYTES} bytes"
            raise RequestError(Failed(413, "request_too_large", text))
        if newline:
            return bytes(line)


def send_replies(connection: socket.socket, outbox: Outbox) -> None:
    """Sends the outbox's replies until the last has gone out. Raises ClientGone as soon as the client closes."""
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLRDHUP)
    poll.register(outbox, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == connection.fileno():
                _read_ignored(connection)
            elif _send_waiting(connection, outbox):
                return


def _send_waiting(connection: socket.socket, outbox: Outbox) -> bool:
    """Sends until nothing waits; returns whether the last reply was sent."""
    over = False
    while not over:
        data, over = outbox.drain()
        if not data:
            return False
        _send_bytes(connection, data)
    return True


def _read_ignored(connection: socket.socket) -> None:
    """Drops what the client sends after its request. Raises ClientGone at the end."""
    try:
        if not connection.recv(READ_BYTES):
            raise ClientGone
    except OSError as error:
        raise ClientGone from error


def send(connection: socket.socket, reply: Reply) -> None:
    """Writes one line. Raises ClientGone if the client is gone or does not read."""
    _send_bytes(connection, dump_line(reply))


def _send_bytes(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError as error:
        raise ClientGone from error


def discard(connection: socket.socket) -> None:
    """Reads and drops what a refused client still sends, for a moment."""
    deadline = time.monotonic() + DISCARD_SECONDS
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(READ_BYTES):
                return
