"""The worker's loop: a callback that ends another connection, and who goes when there are too many."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.web.wsgi.server import Server, ServerOptions
from app.web.wsgi.worker import PatientWorker


def test_an_event_of_a_connection_that_was_just_ended_is_nothing() -> None:
    """Both are readable in the same round; whichever comes first ends the other."""
    poller, pairs, called = selectors.DefaultSelector(), [socket.socketpair() for _ in range(2)], []

    def end_the_other(mine: socket.socket, other: socket.socket, _: Any) -> None:
        called.append(mine)
        poller.unregister(other)
        other.close()

    (first, one), (second, two) = pairs
    poller.register(first, selectors.EVENT_READ, lambda found: end_the_other(first, second, found))
    poller.register(second, selectors.EVENT_READ, lambda found: end_the_other(second, first, found))
    one.send(b"x")
    two.send(b"x")
    worker: Any = SimpleNamespace(poller=poller)
    PatientWorker.wait_for_and_dispatch_events(worker, 5.0)
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

    newcomer, kept = Idle(), Idle()
    worker: Any = SimpleNamespace(
        _gathering={}, pending_conns=deque([newcomer]), keepalived_conns=deque([kept]), _lingering=deque(), nr_conns=2
    )
    worker.poller = SimpleNamespace(unregister=lambda sock: None)
    PatientWorker._drop_oldest(worker)
    assert (newcomer.closed, kept.closed, worker.nr_conns) == (False, True, 1)


def test_files_are_sent_in_a_way_that_gives_up(tmp_path: Path) -> None:
    """socket.sendfile waits for ever for a client that doesn't read, whatever SO_SNDTIMEO says."""
    server = Server(ServerOptions(tmp_path / "config.json", 0, 0, 8, tmp_path, 1))
    assert server.cfg.sendfile is False
