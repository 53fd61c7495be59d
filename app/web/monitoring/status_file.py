"""status.json as the web service sees it: read when it changed, and put into words."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from app.contract.codec import ContractError
from app.contract.plan import Text
from app.contract.status import Progress, Status, read_status

_log = logging.getLogger("berth.web")

_WORDS = {
    "starting": "Berth is starting.",
    "planning": "Berth is measuring the memory and planning.",
    "downloading": "The model is being downloaded",
    "loading": "The model is being loaded",
    "proving": "The model is loaded and is being tried out.",
    "ready": "Berth is ready.",
    "recovering": "The engine has stopped and is being started again.",
    "failed": "The model could not be started.",
    "stopping": "Berth is stopping.",
}


@dataclass(frozen=True)
class _Read:
    """A status and the file's identity at that time; the supervisor replaces the file, so the inode tells as well."""

    identity: tuple[int, int]
    status: Status


class StatusFile:
    """Reads the supervisor's status. Threads may share one: each replaces a whole `_Read` or uses the one it saw."""

    def __init__(self, path: Path, model_name: str) -> None:
        self._path = path
        self._last = _Read((0, 0), _not_yet(model_name))

    def read(self) -> Status:
        """The present status; where there is no file yet, phase `starting`; where it is broken, the last good one."""
        try:
            stat = self._path.stat()
            identity = (stat.st_mtime_ns, stat.st_ino)
            if identity != self._last.identity:
                self._last = _Read(identity, read_status(self._path))
        except FileNotFoundError:
            pass
        except (OSError, ContractError, ValueError) as error:
            _log.warning("cannot read %s: %s", self._path.name, error)
        return self._last.status


def _not_yet(model_name: str) -> Status:
    now = time.time()
    return Status("starting", now, now, "", model_name, Text("", ""), "")


def words_of(status: Status) -> str:
    """The phase alone, for those who have no key."""
    return f"{_WORDS[status.phase].rstrip('.')}."


def describe(status: Status) -> str:
    """One or two sentences for an error message or a health check."""
    words = _WORDS[status.phase]
    if status.progress is not None and not words.endswith("."):
        words += f": {_share(status.progress)}"
    if status.note is not None:
        words = f"{words.rstrip('.')}. {status.note.en}"
    if status.phase == "failed":
        words = f"{words} {_why_failed(status)}".rstrip()
    elif status.phase == "recovering" and status.last_death is not None:
        words += f" {status.last_death.why.en}"
    return words if words.endswith((".", "!")) else f"{words}."


def _share(progress: Progress) -> str:
    gib = 1024**3
    text = f"{progress.done_bytes / gib:.2f} of {progress.total_bytes / gib:.2f} GiB"
    if progress.eta_seconds is not None:
        text += f", about {progress.eta_seconds:.0f} s left"
    return text


def _why_failed(status: Status) -> str:
    if status.refusal is not None:
        return f"{status.refusal.why.en} {status.refusal.remedy.en}"
    if status.last_death is not None:
        remedy = status.last_death.remedy
        return f"{status.last_death.why.en} {remedy.en if remedy else ''}".rstrip()
    return ""
