"""The state directory: its files, its lock, and the memory that the running service uses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from app.contract.codec import from_json, write_atomically
from entrypoint.messages.sentence import sentence
from entrypoint.paths import make_writable, not_writable
from entrypoint.settings.settings import SettingsError

SOCKET_PATH_LIMIT = 107
"""Bytes in sun_path less the final NUL (unix(7))."""
RUN_DIR = Path("/run/berth")


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryUsage:
    """The memory that a running service uses, for a `plan` beside it."""

    namespace: int = 0
    """Inode of its PID namespace: a reader with the same one shares its container, and so its memory limit."""
    anonymous_bytes: int = 0
    gpu_bytes: dict[str, int] = field(default_factory=dict)
    """By GPU UUID."""


@dataclass(frozen=True)
class StateDir:
    """The state directory's files."""

    folder: Path

    @property
    def config(self) -> Path:
        """The app config."""
        return self.folder / "config.json"

    @property
    def database(self) -> Path:
        """The conversations: an SQLite file that the web service creates."""
        return self.folder / "berth.db"

    @property
    def ledger(self) -> Path:
        """What was measured here, and the rungs that failed."""
        return self.folder / "ledger.json"

    @property
    def usage(self) -> Path:
        """The running service's memory."""
        return self.folder / "held.json"

    @property
    def api_key(self) -> Path:
        """The key that Berth made if none was set."""
        return self.folder / "api_key"

    @property
    def sessions(self) -> Path:
        """The signed-in browsers; the web service writes it."""
        return self.folder / "sessions.json"

    @property
    def lock(self) -> Path:
        """Locked (flock) while a service runs; the lock goes with its process, however it ends."""
        return self.folder / "lock"


def open_state(folder: Path) -> tuple[StateDir, int]:
    """Creates the directory if it is missing and locks it; the lock lasts as long as the descriptor.

    Raises:
        SettingsError: it can't be written (with owner, uid and remedy), or another Berth uses it.
    """
    state = StateDir(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        lock = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why, remedy = sentence(not_writable(folder, error)), sentence(make_writable(folder, "GLM_STATE_DIR"))
        raise SettingsError(f"GLM_STATE_DIR={why.en} {remedy.en}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise SettingsError(
            f"GLM_STATE_DIR={folder}: another Berth uses it; stop that one, or set another directory here"
        ) from error
    except OSError as error:
        log.warning("%s is on a volume without locks (%s): make sure only one Berth uses it", folder, error.strerror)
    return state, lock


def read_usage(folder: Path) -> MemoryUsage:
    """The memory of a service that uses this state directory; zero if none does. Writes nothing."""
    if not is_running(folder):
        return MemoryUsage()
    try:
        return from_json(MemoryUsage, json.loads(StateDir(folder).usage.read_text(encoding="utf-8")), "held.json")
    except (OSError, ValueError):
        return MemoryUsage()


def is_running(folder: Path) -> bool:
    """Whether a service uses this state directory."""
    try:
        with StateDir(folder).lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def write_usage(state: StateDir, anonymous_bytes: int, gpu_bytes: dict[str, int]) -> None:
    """Writes what this service uses. Only `plan` reads it, so a full disk is ignored."""
    with contextlib.suppress(OSError):
        write_atomically(state.usage, MemoryUsage(pid_namespace(), anonymous_bytes, gpu_bytes))


def pid_namespace() -> int:
    """Inode of this process's PID namespace; 0 if it is unknown."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def make_run_dir() -> Path:
    """A private directory for sockets and status: the tmpfs of Compose, otherwise a temporary one (mode 0700).

    Raises:
        SettingsError: it can't be created, or its path is too long for a Unix socket.
    """
    if os.access(RUN_DIR, os.W_OK):
        return RUN_DIR
    try:
        folder = Path(tempfile.mkdtemp(prefix="berth-"))
    except OSError as error:
        raise SettingsError(
            f"TMPDIR: can't create a temporary directory ({error.strerror}); set TMPDIR to one that can be written"
        ) from error
    if len(os.fsencode(folder / "engine.sock")) > SOCKET_PATH_LIMIT:
        folder.rmdir()
        raise SettingsError(
            f"TMPDIR={folder.parent}: too long for the path of a Unix socket (107 bytes); set a shorter one"
        )
    return folder
