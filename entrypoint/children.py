"""Child processes: each in a session of its own, each holding a lifeline to this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENGINE_OOM_SCORE = 500
"""Added for the engine, so that the kernel takes it before the supervisor and the page when memory runs out."""

STOP_POLL_SECONDS = 0.02
KILL_SECONDS = 5.0
"""How long a killed process is waited for: one that hangs in a driver may never go."""


@dataclass(frozen=True)
class Child:
    """A running child. Closing `lifeline` (or dying) tells it that its supervisor is gone."""

    name: str
    process: subprocess.Popen[bytes]
    lifeline: int

    @property
    def pid(self) -> int:
        """Its process id, and that of its session."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """Exit code, negative for a signal, None while it runs; the lifeline is closed with its end."""
        return self.process.poll()

    def stop(self, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        """SIGTERM, a wait that is bounded and ends at once when `hurry` says so, SIGKILL."""
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
