"""Prepares the database file: mode 0600, and a journal that works on its volume. Without SQLAlchemy."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from app.web.store.errors import from_sqlite, unavailable

REVISIONS = ("0001", "0002")
"""Alembic's revisions, the newest last. Listed here because importing Alembic takes a quarter of a second."""
BUSY_SECONDS = 5.0
"""How long to wait for another process's lock."""
_NOT_THE_JOURNALS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY}
"""Errors that another journal would not avoid."""
_log = logging.getLogger("berth.web")


def prepare_file(path: Path) -> None:
    """Creates the file if it is missing, and checks that it is writable.

    The journal is a write-ahead log. Network volumes without shared memory don't support that; there it is SQLite's
    rollback journal, which makes readers and writers wait for each other.

    Raises:
        StoreError: the file can't be used.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unavailable(f"{path.name}: {error.strerror}") from error
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    try:
        failure = _try_write_ahead(path)
        if failure is not None:
            _use_rollback(path)
            _log.warning("%s: no write-ahead log on this volume (%s); using a rollback journal", path.name, failure)
    except sqlite3.Error as error:
        raise from_sqlite(error) from error


def _try_write_ahead(path: Path) -> str | None:
    """Switches to a write-ahead log. Returns why that failed, or None if it works."""
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            _write_something(connection)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in _NOT_THE_JOURNALS:
            raise
        return str(error)
    return None if mode == "wal" else f"its journal stays {mode}"


def _use_rollback(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        # Without shared memory, a file that was in WAL mode elsewhere can only be opened by one process alone.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")
        _write_something(connection)


def _write_something(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {int(number)}")
    connection.execute("COMMIT")


def revision_of(path: Path) -> str | None:
    """The revision of the file's tables; None if it has none yet.

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
