"""The web's end of engine.sock: sends a request and reads its replies until the client disconnects."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from typing import Any

from app.contract.codec import ContractError, dump_line, from_json
from app.contract.wire import LINE_LIMIT_BYTES, EngineRequest, Reply
from app.web import drain

_CONNECT_SECONDS = 5.0
_SEND_SECONDS = 10.0
_POLL_SECONDS = 0.25
"""How often a waiting thread checks whether the drain is over. A client that disconnects wakes it at once."""
_DISCONNECTED = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class EngineUnavailableError(Exception):
    """No process listens on the socket: the engine is loading, restarting or has ended."""


class EngineDiedError(Exception):
    """The connection ended without `Finished` or `Failed`."""


class ClientLeftError(Exception):
    """The client closed its connection."""


class DrainOverError(Exception):
    """The service is stopping, and the time for running answers is over."""


class TooManyCallsError(Exception):
    """As many calls are open as may be."""


class RequestTooLongError(Exception):
    """The request is longer than the longest line of the wire."""


class EngineClient:
    """Opens calls to the engine, at most `limit` at once, so that threads are left for other requests."""

    def __init__(self, socket_path: str, limit: int) -> None:
        self._socket_path = socket_path
        self.waiting = threading.BoundedSemaphore(limit)
        """One is acquired for each open call, and for each reader of a turn that another thread waits for."""

    def call(self, request: EngineRequest, client: socket.socket | None) -> EngineCall:
        """Sends the request. `client` is the HTTP client's connection, watched while the engine works.

        Raises:
            RequestTooLongError, TooManyCallsError, EngineUnavailableError
        """
        line = dump_line(request)
        if len(line) > LINE_LIMIT_BYTES:
            raise RequestTooLongError
        if not self.waiting.acquire(blocking=False):
            raise TooManyCallsError
        try:
            return EngineCall(self._connect(line), client, self.waiting)
        except BaseException:
            self.waiting.release()
            raise

    def _connect(self, line: bytes) -> socket.socket:
        engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            engine.settimeout(_CONNECT_SECONDS)
            engine.connect(self._socket_path)
            engine.settimeout(_SEND_SECONDS)
            # An engine that refuses the request may close before it has read all of it; its reply can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                engine.sendall(line)
            engine.setblocking(False)
        except OSError as error:
            engine.close()
            raise EngineUnavailableError(str(error)) from error
        return engine


class EngineCall:
    """One request in the engine. Closing it before its end cancels the request."""

    def __init__(self, engine: socket.socket, client: socket.socket | None, free: threading.BoundedSemaphore) -> None:
        self._engine = engine
        self._free = free
        self._received = bytearray()
        self._closed = False
        self._client_fd = client.fileno() if client is not None else None
        self._poll = select.poll()
        self._poll.register(engine, select.POLLIN)
        if self._client_fd is not None:
            # No POLLIN: bytes of the next request may have arrived and would wake the thread again and again.
            self._poll.register(self._client_fd, _DISCONNECTED)

    def wait(self, seconds: float) -> Reply | None:
        """The next reply; None if none came for so long.

        Raises:
            EngineDiedError, ClientLeftError, DrainOverError
        """
        deadline = time.monotonic() + seconds
        while (line := self._next_line()) is None:
            if drain.is_over():
                raise DrainOverError
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            self._receive(min(remaining, _POLL_SECONDS))
        return _parse(line)

    def close(self) -> None:
        """Ends the call, and with it the request unless that has finished. May be called twice."""
        if not self._closed:
            self._closed = True
            self._engine.close()
            self._free.release()

    def _next_line(self) -> bytes | None:
        end = self._received.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _receive(self, seconds: float) -> None:
        ready = dict(self._poll.poll(seconds * 1000))
        if self._client_fd in ready:
            raise ClientLeftError
        if not ready:
            return
        try:
            data = self._engine.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            raise EngineDiedError(str(error)) from error
        if not data or len(self._received) > LINE_LIMIT_BYTES:
            raise EngineDiedError("the connection ended" if not data else "a line is too long")
        self._received += data


def _parse(line: bytes) -> Reply:
    try:
        value: Any = json.loads(line)
        return from_json(Reply, value, "reply")  # type: ignore[arg-type]
    except (ContractError, ValueError) as error:
        raise EngineDiedError(f"a reply is not valid: {error}") from error
