"""Reads status.json when it has changed, and describes a status in English."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from app.contract.codec import ContractError
from app.contract.plan import Text
from app.contract.status import Status, read_status

_log = logging.getLogger("berth.web")

_PHASES = {
    "starting": "Berth is starting.",
    "planning": "Berth is measuring the memory and planning.",
    "downloading": "The model is being downloaded",
    "loading": "The model is being loaded",
    "proving": "The model is loaded and its memory is being checked",
    "ready": "Berth is ready.",
    "recovering": "The engine has stopped and is being restarted.",
    "failed": "The model could not be started.",
    "stopping": "Berth is stopping.",
}


@dataclass(frozen=True)
class _Snapshot:
    """A status and the identity of the file that it was read from: the supervisor replaces the file at each change."""

    identity: tuple[int, int]
    """Modification time in nanoseconds, and inode."""
    status: Status


class StatusFile:
    """Reads the supervisor's status. Thread-safe: a snapshot is replaced as a whole."""

    def __init__(self, path: Path, model_name: str) -> None:
        self._path = path
        self._last = _Snapshot((0, 0), _starting(model_name))

    def read(self) -> Status:
        """The current status. Without a file its phase is `starting`; if the file is broken, the last good one."""
        try:
            stat = self._path.stat()
            identity = (stat.st_mtime_ns, stat.st_ino)
            if identity != self._last.identity:
                self._last = _Snapshot(identity, read_status(self._path))
        except FileNotFoundError:
            pass
        except (OSError, ContractError, ValueError) as error:
            _log.warning("cannot read %s: %s", self._path.name, error)
        return self._last.status


def _starting(model_name: str) -> Status:
    now = time.time()
    return Status("starting", now, now, "", model_name, Text("", ""), "")


def describe_phase(status: Status) -> str:
    """The phase only, for clients without a key."""
    return f"{_PHASES[status.phase].rstrip('.')}."


def describe(status: Status) -> str:
    """One or two sentences for an error message."""
    text = _PHASES[status.phase]
    if not text.endswith(".") and (progress := _progress(status)):
        text += f": {progress}"
    if status.note is not None:
        text = f"{text.rstrip('.')}. {status.note.en}"
    if status.phase == "failed":
        text = f"{text} {_failure(status)}".rstrip()
    elif status.phase == "recovering" and status.last_death is not None:
        text += f" {status.last_death.why.en}"
    return text if text.endswith((".", "!")) else f"{text}."


def seconds_left(status: Status) -> float | None:
    """Of the current phase; None if nothing is known of it."""
    current = status.steps or status.progress
    return current.eta_seconds if current and status.load_stage != "preparing" else None


def _progress(status: Status) -> str:
    """How far the phase is, as far as that is known."""
    gib, progress, steps = 1024**3, status.progress, status.steps
    if status.load_stage in ("starting_process", "preparing"):
        return "its process is starting" if status.load_stage == "starting_process" else "all weights are read"
    if steps is not None:
        text = f"step {min(steps.done + 1, steps.total)} of {steps.total}"
    elif progress is not None:
        text = f"{progress.done_bytes / gib:.2f} of {progress.total_bytes / gib:.2f} GiB"
    else:
        return ""
    left = seconds_left(status)
    return text if left is None else f"{text}, about {left:.0f} s left"


def _failure(status: Status) -> str:
    if status.refusal is not None:
        return f"{status.refusal.why.en} {status.refusal.remedy.en}"
    if status.last_death is not None:
        remedy = status.last_death.remedy
        return f"{status.last_death.why.en} {remedy.en if remedy else ''}".rstrip()
    return ""
