"""The database file before anybody uses it: made with mode 0600, its journal chosen by trying. No SQLAlchemy here."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from app.web.store.errors import explained, storage_unavailable

REVISIONS = ("0001", "0002")
"""All there are, the newest last: known without Alembic, which takes a quarter of a second to import."""
BUSY_SECONDS = 5.0
"""How long to wait for another process's lock."""


_PASSED_ON = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY}
"""No other journal would help against these."""
_log = logging.getLogger("berth.web")


def prepare_file(path: Path) -> None:
    """Makes the file where there is none, and sees that it can be written.

    The journal is a write-ahead log. Network volumes that have no shared memory can't do that: there it is SQLite's
    rollback journal, which every reader and writer has to wait for.

    Raises:
        ApiError: it can't be used.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise storage_unavailable(f"{path.name}: {error.strerror}") from error
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    try:
        why = _try_write_ahead(path)
        if why is not None:
            _use_rollback(path)
            _log.warning("%s: no write-ahead log on this volume (%s); a rollback journal is used", path.name, why)
    except sqlite3.Error as error:
        raise explained(error) from error


def _try_write_ahead(path: Path) -> str | None:
    """Why there is none; None where it works."""
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            _write_something(connection)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in _PASSED_ON:
            raise
        return str(error)
    return None if mode == "wal" else f"its journal stays {mode}"


def _use_rollback(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        # A file that was in WAL mode elsewhere can only be opened here without shared memory: by one process alone.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")
        _write_something(connection)


def _write_something(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {int(number)}")
    connection.execute("COMMIT")


def revision_of(path: Path) -> str | None:
    """The revision that the file's tables have; None where there are none yet.

    Raises:
        sqlite3.Error: it can't be read.
    """
    if not path.is_file():
        return None
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None
