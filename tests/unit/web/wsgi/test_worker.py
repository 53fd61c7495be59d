"""The worker's loop: a callback that closes another connection, and which one is closed if there are too many."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.web.wsgi.server import ServerOptions, WebServer
from app.web.wsgi.worker import BufferingWorker


def test_an_event_of_a_connection_that_was_just_ended_is_nothing() -> None:
    """Both are readable in the same round; whichever comes first ends the other."""
    poller, pairs, called = selectors.DefaultSelector(), [socket.socketpair() for _ in range(2)], []

    def end_the_other(mine: socket.socket, other: socket.socket, _: Any) -> None:
        called.append(mine)
        poller.unregister(other)
        other.close()

    (first, one), (second, two) = pairs
    poller.register(first, selectors.EVENT_READ, lambda event: end_the_other(first, second, event))
    poller.register(second, selectors.EVENT_READ, lambda event: end_the_other(second, first, event))
    one.send(b"x")
    two.send(b"x")
    worker: Any = SimpleNamespace(poller=poller)
    BufferingWorker.wait_for_and_dispatch_events(worker, 5.0)
    assert len(called) == 1
    poller.close()
    for end in (*pairs[0], *pairs[1]):
        end.close()


def test_who_has_only_just_come_is_not_the_one_to_go() -> None:
    class Idle:
        def __init__(self) -> None:
            self.sock, self.closed = object(), False

        def close(self) -> None:
            self.closed = True

    accepted, idle = Idle(), Idle()
    worker: Any = SimpleNamespace(
        _incomplete={}, pending_conns=deque([accepted]), keepalived_conns=deque([idle]), _lingering=deque(), nr_conns=2
    )
    worker.poller = SimpleNamespace(unregister=lambda sock: None)
    BufferingWorker._drop_oldest(worker)
    assert (accepted.closed, idle.closed, worker.nr_conns) == (False, True, 1)


def test_files_are_sent_in_a_way_that_gives_up(tmp_path: Path) -> None:
    """socket.sendfile waits for ever for a client that doesn't read, whatever SO_SNDTIMEO says."""
    options = ServerOptions(
        config_path=tmp_path / "config.json", listen_fd=0, lifeline_fd=0, threads=8, run_dir=tmp_path, drain_seconds=1
    )
    server = WebServer(options)
    assert server.cfg.sendfile is False
