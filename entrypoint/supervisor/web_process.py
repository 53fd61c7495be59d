"""The web process: started first, restarted whenever it ends."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

from app.contract.limits import MOST_SLOTS, QUEUE_LIMIT, THREADS_BESIDE_STREAMS
from entrypoint.settings.settings import Settings
from entrypoint.supervisor.child_process import Child, spawn

LONGEST_BACKOFF_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""After running this long, a web process that ends is restarted with the shortest delay again."""
log = logging.getLogger(__name__)


class WebRun:
    """Keeps one gunicorn on the listening socket."""

    def __init__(self, settings: Settings, config: Path, run_dir: Path, listener: socket.socket) -> None:
        self._settings, self._listener = settings, listener
        self._arguments = ["app.web", "--config", str(config), "--listen-fd", str(listener.fileno())]
        slots = settings.max_num_seqs or MOST_SLOTS
        self._arguments += ["--threads", str(QUEUE_LIMIT + slots + THREADS_BESIDE_STREAMS)]
        self._arguments += ["--run-dir", str(run_dir), "--drain-seconds", str(settings.drain_seconds)]
        self._backoff = 1.0
        self._not_before = 0.0
        self._started = 0.0
        self._child: Child | None = None

    def start(self) -> None:
        """Starts it."""
        self._started = time.monotonic()
        self._child = spawn("web", self._arguments, self._settings.environment, [self._listener.fileno()])

    def watch(self) -> None:
        """Restarts it if it has ended, with a longer delay each time."""
        now = time.monotonic()
        if self._child is None:
            if now >= self._not_before:
                self.start()
        elif (code := self._child.exit_code()) is not None:
            self._backoff = 1.0 if now - self._started > SETTLED_SECONDS else self._backoff * 2
            self._not_before = now + min(self._backoff / 2, LONGEST_BACKOFF_SECONDS)
            log.error("the web process ended (%s) and restarts", code)
            self._child.release()
            self._child = None

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Lets running answers finish, for GLM_DRAIN_SECONDS at most."""
        if self._child is not None:
            self._child.stop(self._settings.drain_seconds + 1, hurry)
