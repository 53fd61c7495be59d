"""gunicorn's gthread worker, changed where one client could hold up all others, and where a stop would wait for nobody.

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
from app.web.wsgi.request_buffer import GATHER_SECONDS, Gathered, TimedUnreader

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024
_SEND_SECONDS = 15.0
"""How long a client may take none of what it is sent; then it has left."""
_SEND_TIMEOUT = struct.pack("ll", int(_SEND_SECONDS), 0)
_DRAIN_SECONDS = 0.05
"""For what is left of a body that nobody wanted: what has not come by then isn't waited for."""
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_PASSING = (errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE)


class Connection(TConn):  # type: ignore[misc]
    """A connection whose graceful close is left to the worker's loop."""

    def __init__(self, worker: PatientWorker, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(worker.cfg, client, address, server)
        self._worker = worker
        self.drained_bytes = 0
        self.gathered = Gathered()

    def init(self) -> None:
        """Called by the thread before each request."""
        if not self.initialized:
            super().init()
            self.parser.unreader = TimedUnreader(self.sock)
        self.parser.unreader.begin(self.gathered.take())

    def read(self) -> bool:
        """Takes what the socket has; whether more may come."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.gathered.add(data)
        return bool(data)

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self._worker.linger(self)
        else:
            super().close()


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """gthread, with six differences.

    A connection that says nothing costs no thread: browsers open some ahead of need, and each would hold a thread
    for seconds. One that speaks slowly costs none either: requests are gathered on the loop, with a deadline, and
    where there are too many connections the slowest ends. A client that doesn't close its end costs no time: gthread
    waits two seconds for it, on the loop that serves everybody. The drain has a deadline that running answers know
    of, and waits for work without a connection. It goes on accepting meanwhile: whoever comes is told so, where the
    listener's queue would end in a reset connection. And a client that asks for an answer and doesn't read it holds
    its thread for a while only.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lingering: deque[Connection] = deque()
        self._gathering: dict[Connection, None] = {}
        """Their requests have begun and are not whole, oldest first."""
        self._stopping = False
        self._held = 0
        """1 while work without a connection keeps a stopping worker: it is counted as one."""

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled or not self.alive)

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            return
        self.nr_conns += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        connection = Connection(self, client, address, listener.getsockname())
        connection.set_timeout()
        if not self.alive:
            connection.timeout = time.monotonic() + _LINGER_SECONDS
        self.pending_conns.append(connection)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection))
        if self.nr_conns >= self.worker_connections:
            self._drop_oldest()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        for key, _ in self.poller.select(timeout):
            if self.poller.get_map().get(key.fd) is key:  # else an earlier one of these has ended it
                key.data(key.fileobj)

    def on_pending_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        self.pending_conns.remove(conn)
        self._read(conn, client)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        self.keepalived_conns.remove(conn)
        self._read(conn, client)

    def finish_request(self, conn: Connection, fs: Any) -> None:
        if conn.initialized:
            # What was sent right behind the request begins the next one, which may not be whole.
            conn.gathered.add(conn.parser.unreader.take_buffered())
        if conn.gathered and not fs.cancelled() and fs.exception() is None and fs.result():
            self._take_up(conn, open_still=True)
        else:
            super().finish_request(conn, fs)

    def _read(self, conn: Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self._take_up(conn, conn.read())

    def _take_up(self, conn: Connection, open_still: bool) -> None:
        """A thread gets the connection once its request is whole; until then it is waited for, not for ever."""
        gathered = conn.gathered
        if open_still and not gathered.is_whole and not gathered.is_too_long:
            if conn not in self._gathering:
                conn.timeout = time.monotonic() + GATHER_SECONDS
                self._gathering[conn] = None
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read, conn))
            return
        self._gathering.pop(conn, None)
        if gathered.is_whole:
            conn.data_ready = True
            self.enqueue_req(conn)
            return
        self.nr_conns -= 1
        if gathered.is_too_long:
            with contextlib.suppress(OSError):
                conn.sock.send(_TOO_LONG)
        conn.close(graceful=gathered.is_too_long)

    def _drop_oldest(self) -> None:
        """Closes the connection that has had most time to say what it wants."""
        waiting = next(iter(self._gathering), None)
        if waiting is not None:
            del self._gathering[waiting]
        elif len(self.pending_conns) > 1:  # the last one has only just come
            waiting = self.pending_conns.popleft()
        elif self.keepalived_conns:
            waiting = self.keepalived_conns.popleft()
        elif self._lingering:
            return self._end(self._lingering[0])
        else:
            return
        self.poller.unregister(waiting.sock)
        self.nr_conns -= 1
        waiting.close()

    def _keepalive_after(self, conn: Connection, keepalive: Any) -> bool:
        return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + _DRAIN_SECONDS))

    def handle_request(self, req: Any, conn: Connection) -> Any:
        try:
            return super().handle_request(req, conn)
        except BlockingIOError as error:  # SO_SNDTIMEO is over
            raise ConnectionResetError(errno.ECONNRESET, "the client doesn't read") from error

    def linger(self, connection: Connection) -> None:
        """Closes our end and reads on for a while: closed fully, unread bytes would make the kernel cut the answer."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
        except OSError:
            connection.close()
            return
        self.nr_conns += 1
        connection.timeout = time.monotonic() + _LINGER_SECONDS
        self._lingering.append(connection)
        self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._read_on, connection))

    def murder_pending(self) -> None:
        now = time.monotonic()
        if not self.alive and not self._stopping:
            self._stopping = True
            for connection in (*self.pending_conns, *self._gathering):
                connection.timeout = now
        if self._stopping:
            held, self._held = self._held, int(drain.is_working())
            self.nr_conns += self._held - held
        super().murder_pending()
        while self._gathering and next(iter(self._gathering)).timeout <= now:
            self._drop_oldest()
        while self._lingering and self._lingering[0].timeout <= now:
            self._end(self._lingering[0])

    def handle_exit(self, sig: int, frame: Any) -> None:
        drain.begin(self.cfg.graceful_timeout)
        super().handle_exit(sig, frame)

    def _read_on(self, connection: Connection, client: socket.socket) -> None:
        try:
            received = len(client.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        connection.drained_bytes += received
        if not received or connection.drained_bytes > _LINGER_BYTES:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        self._lingering.remove(connection)
        self.poller.unregister(connection.sock)
        self.nr_conns -= 1
        connection.close()
