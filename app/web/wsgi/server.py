"""Configures gunicorn: one worker with many threads, on a socket that the supervisor has bound."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from app.contract import lifeline
from app.contract.config import read_config
from app.web.store.startup_migration import migrate_in_child
from app.web.wsgi.worker import BufferingWorker

_HEARTBEAT_SECONDS = 60
"""The main loop sends a heartbeat every second. Only a worker that hangs misses this deadline."""
_KEEPALIVE_SECONDS = 30
_IDLE_CONNECTIONS = 1000
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
"""The supervisor handles Ctrl-C. The others would make gunicorn reload, fork or re-execute itself."""


@dataclass(frozen=True)
class ServerOptions:
    """The command line."""

    config_path: Path
    listen_fd: int
    lifeline_fd: int
    threads: int
    run_dir: Path
    drain_seconds: int


class WebServer(BaseApplication):  # type: ignore[misc]
    """Runs the app until SIGTERM. Ignores gunicorn's environment variables and configuration files."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._master_alive = os.pipe()
        super().__init__()

    def load_config(self) -> None:
        options = self._options
        _allow_files(2 * (_IDLE_CONNECTIONS + options.threads))
        settings: dict[str, Any] = {
            "bind": [f"fd://{options.listen_fd}"],
            "workers": 1,
            "worker_class": BufferingWorker,
            "threads": options.threads,
            "worker_connections": _IDLE_CONNECTIONS + options.threads,
            "worker_tmp_dir": str(options.run_dir),
            "graceful_timeout": options.drain_seconds,
            "timeout": _HEARTBEAT_SECONDS,
            "keepalive": _KEEPALIVE_SECONDS,
            "limit_request_line": 8190,
            "forwarded_allow_ips": "",
            "control_socket_disable": True,
            # With SO_SNDTIMEO, socket.sendfile would retry for ever.
            "sendfile": False,
            "accesslog": None,
            "loglevel": "warning",
            "proc_name": "berth-web",
            "on_starting": self._on_starting,
            "when_ready": self._when_ready,
            "post_fork": self._post_fork,
            "post_worker_init": _post_worker_init,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        """Imports the app in the worker, so that the master stays small and a new worker reads the current config."""
        from app.web.factory import create_app

        return create_app(self._options.config_path, threads=self._options.threads)

    def _on_starting(self, arbiter: Any) -> None:
        database = read_config(self._options.config_path).DATABASE
        if database is not None:
            migrate_in_child(Path(database))

    def _when_ready(self, arbiter: Any) -> None:
        _ignore_signals()
        lifeline.watch(self._options.lifeline_fd)

    def _post_fork(self, arbiter: Any, worker: Any) -> None:
        # Only the master keeps the writing end: if it is killed, the worker must stop serving the port.
        with contextlib.suppress(OSError):
            os.close(self._master_alive[1])
        lifeline.watch(self._options.lifeline_fd, self._master_alive[0])


def _post_worker_init(worker: Any) -> None:
    _ignore_signals()


def _ignore_signals() -> None:
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _allow_files(count: int) -> None:
    """Raises the limit of open files: many shells set 1024, less than the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
