"""Child processes: each in a session of its own, each with a lifeline to this one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.contract.codec import ContractError, from_json

READ_BYTES = 65536
log = logging.getLogger(__name__)


ENGINE_OOM_SCORE = 500
"""The engine's, so that the kernel kills it before the supervisor and the web service when memory runs out."""

STOP_POLL_SECONDS = 0.02
KILL_SECONDS = 5.0
"""How long to wait for a killed process: one that hangs in a driver may never end."""


@dataclass(frozen=True)
class Child:
    """A running child. It ends when `lifeline` is closed, as it is when this process ends."""

    name: str
    process: subprocess.Popen[bytes]
    lifeline: int

    @property
    def pid(self) -> int:
        """Its process id, and that of its session."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def stop(self, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        """SIGTERM, then SIGKILL after the grace period, or as soon as `hurry` returns true."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + grace_seconds
        while self.exit_code() is None:
            if hurry() or time.monotonic() >= end:
                self.kill()
                break
            time.sleep(STOP_POLL_SECONDS)
        self.release()

    def kill(self) -> None:
        """SIGKILL to its whole session, and a wait for its end."""
        self.send_kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(KILL_SECONDS)

    def send_kill(self) -> None:
        """SIGKILL to its whole session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def release(self) -> None:
        """Closes the lifeline of a child that has ended."""
        with contextlib.suppress(OSError):
            os.close(self.lifeline)


def spawn(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    oom_score: int = 0,
) -> Child:
    """Starts `python -m <arguments>` with `--lifeline-fd` added."""
    theirs, ours = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments, "--lifeline-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            pass_fds=[theirs, *pass_fds],
            start_new_session=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    if oom_score:
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(str(oom_score), encoding="ascii")
    return Child(name, process, ours)


class EventReader:
    """Reads a child's events from a pipe without blocking; `descriptor` is for a selector."""

    def __init__(self, descriptor: int, sender: str, kind: Any) -> None:
        self.descriptor = descriptor
        self._sender, self._kind, self._rest = sender, kind, b""

    def read(self) -> Iterator[Any]:
        """The events that have arrived, maybe none. A line that is not an event is logged and skipped."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.descriptor, READ_BYTES):
                self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            try:
                event = from_json(self._kind, json.loads(line), "event")
            except (ContractError, ValueError) as error:
                log.error("the %s process sent a line that is not an event: %s", self._sender, error)
                continue
            yield event

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self.descriptor)


def spawn_reporting(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], kind: Any, oom_score: int = 0
) -> tuple[Child, EventReader]:
    """Starts `python -m <arguments>` with `--events-fd` and `--lifeline-fd`; `kind` is the union of its events."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    try:
        child = spawn(name, [*arguments, "--events-fd", str(theirs)], environment, [theirs], oom_score)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return child, EventReader(ours, name, kind)
