"""gunicorn's gthread worker, changed so that a client can't delay others, and a stop waits for running answers only.

Everything here runs on the worker's main loop, so nothing may block.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import time
from collections import deque
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from app.web import drain
from app.web.wsgi.request_buffer import BUFFER_SECONDS, RequestBuffer, TimedUnreader

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024
"""How long, and how much, a closing connection is still read."""
_SEND_SECONDS = 15.0
"""A client that reads nothing for so long is disconnected."""
_SEND_TIMEOUT = struct.pack("ll", int(_SEND_SECONDS), 0)
_DRAIN_SECONDS = 0.05
"""How long to wait for the rest of a body that the app didn't read."""
_HEAD_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TRANSIENT_ERRORS = (errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE)


class BufferedConnection(TConn):  # type: ignore[misc]
    """A connection with a request buffer, closed gracefully by the worker's loop."""

    def __init__(self, worker: BufferingWorker, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(worker.cfg, client, address, server)
        self._worker = worker
        self.drained_bytes = 0
        self.buffer = RequestBuffer()

    def init(self) -> None:
        """Prepares the next request. A thread calls this."""
        if not self.initialized:
            super().init()
            self.parser.unreader = TimedUnreader(self.sock)
        self.parser.unreader.begin(self.buffer.pop_all())

    def read(self) -> bool:
        """Reads from the socket into the buffer, without blocking. Returns whether the connection is still open."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.buffer.add(data)
        return bool(data)

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self._worker.linger(self)
        else:
            super().close()


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """gthread with six differences.

    - A silent connection uses no thread. Browsers open connections in advance, and in gthread each would hold a
      thread for seconds.
    - A slow connection uses none either: the loop buffers requests, with a deadline. With too many connections, the
      slowest is closed.
    - Closing gracefully doesn't block. gthread waits two seconds on the main loop for a client that keeps its end open.
    - The drain has a deadline that running answers can check, and waits for work without a connection.
    - The drain goes on accepting, so that new requests get a response. Left in the listener's queue, they would be
      reset.
    - A client that doesn't read its answer loses its thread after a while.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lingering: deque[BufferedConnection] = deque()
        self._incomplete: dict[BufferedConnection, None] = {}
        """Connections whose request has begun and is not complete, oldest first."""
        self._stopping = False
        self._counted_work = 0
        """1 while a stopping worker waits for work without a connection, which counts as one connection."""

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled or not self.alive)

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in _TRANSIENT_ERRORS:
                raise
            return
        self.nr_conns += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        connection = BufferedConnection(self, client, address, listener.getsockname())
        connection.set_timeout()
        if not self.alive:
            connection.timeout = time.monotonic() + _LINGER_SECONDS
        self.pending_conns.append(connection)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection))
        if self.nr_conns >= self.worker_connections:
            self._drop_oldest()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        for key, _ in self.poller.select(timeout):
            if self.poller.get_map().get(key.fd) is key:  # unless an earlier event has closed it
                key.data(key.fileobj)

    def on_pending_socket_readable(self, conn: BufferedConnection, client: socket.socket) -> None:
        self.pending_conns.remove(conn)
        self._read(conn, client)

    def on_client_socket_readable(self, conn: BufferedConnection, client: socket.socket) -> None:
        self.keepalived_conns.remove(conn)
        self._read(conn, client)

    def finish_request(self, conn: BufferedConnection, fs: Any) -> None:
        if conn.initialized:
            # Bytes after the request belong to the next one, which may be incomplete.
            conn.buffer.add(conn.parser.unreader.take_buffered())
        if conn.buffer and not fs.cancelled() and fs.exception() is None and fs.result():
            self._dispatch(conn, is_open=True)
        else:
            super().finish_request(conn, fs)

    def _read(self, conn: BufferedConnection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self._dispatch(conn, conn.read())

    def _dispatch(self, conn: BufferedConnection, is_open: bool) -> None:
        """Passes a complete request to a thread, waits for the rest of an incomplete one, or closes the connection."""
        buffer = conn.buffer
        if is_open and not buffer.is_complete and not buffer.is_too_long:
            if conn not in self._incomplete:
                conn.timeout = time.monotonic() + BUFFER_SECONDS
                self._incomplete[conn] = None
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read, conn))
            return
        self._incomplete.pop(conn, None)
        if buffer.is_complete:
            conn.data_ready = True
            self.enqueue_req(conn)
            return
        self.nr_conns -= 1
        if buffer.is_too_long:
            with contextlib.suppress(OSError):
                conn.sock.send(_HEAD_TOO_LONG)
        conn.close(graceful=buffer.is_too_long)

    def _drop_oldest(self) -> None:
        """Closes the connection that has waited longest without a complete request."""
        oldest = next(iter(self._incomplete), None)
        if oldest is not None:
            del self._incomplete[oldest]
        elif len(self.pending_conns) > 1:  # the last one has just been accepted
            oldest = self.pending_conns.popleft()
        elif self.keepalived_conns:
            oldest = self.keepalived_conns.popleft()
        elif self._lingering:
            return self._end(self._lingering[0])
        else:
            return
        self.poller.unregister(oldest.sock)
        self.nr_conns -= 1
        oldest.close()

    def _keepalive_after(self, conn: BufferedConnection, keepalive: Any) -> bool:
        return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + _DRAIN_SECONDS))

    def handle_request(self, req: Any, conn: BufferedConnection) -> Any:
        try:
            return super().handle_request(req, conn)
        except BlockingIOError as error:  # SO_SNDTIMEO has expired
            raise ConnectionResetError(errno.ECONNRESET, "the client doesn't read its response") from error

    def linger(self, connection: BufferedConnection) -> None:
        """Closes our end and reads for a while: if bytes are unread at the close, the kernel resets the connection."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
        except OSError:
            connection.close()
            return
        self.nr_conns += 1
        connection.timeout = time.monotonic() + _LINGER_SECONDS
        self._lingering.append(connection)
        self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._discard, connection))

    def murder_pending(self) -> None:
        now = time.monotonic()
        if not self.alive and not self._stopping:
            self._stopping = True
            for connection in (*self.pending_conns, *self._incomplete):
                connection.timeout = now
        if self._stopping:
            before, self._counted_work = self._counted_work, int(drain.is_working())
            self.nr_conns += self._counted_work - before
        super().murder_pending()
        while self._incomplete and next(iter(self._incomplete)).timeout <= now:
            self._drop_oldest()
        while self._lingering and self._lingering[0].timeout <= now:
            self._end(self._lingering[0])

    def handle_exit(self, sig: int, frame: Any) -> None:
        drain.begin(self.cfg.graceful_timeout)
        super().handle_exit(sig, frame)

    def _discard(self, connection: BufferedConnection, client: socket.socket) -> None:
        try:
            received = len(client.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        connection.drained_bytes += received
        if not received or connection.drained_bytes > _LINGER_BYTES:
            self._end(connection)

    def _end(self, connection: BufferedConnection) -> None:
        self._lingering.remove(connection)
        self.poller.unregister(connection.sock)
        self.nr_conns -= 1
        connection.close()
