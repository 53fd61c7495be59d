"""Which tables a file has, and the way to newer ones at the start: small, since gunicorn's master imports it."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

REVISIONS = ("0001", "0002")
"""All there are, the newest last: known without Alembic, which takes a quarter of a second to import."""
BUSY_SECONDS = 5.0
"""How long to wait for another process's lock."""
_log = logging.getLogger("berth.web")


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


def bring_up_to_date_in_child(path: Path) -> None:
    """Migrates in a process of its own, so that the caller neither keeps a connection nor grows by what it imports.

    A failure is one line in the log; requests meet it again and tell it to whoever asks.
    """
    try:
        if revision_of(path) == REVISIONS[-1]:
            return
    except sqlite3.Error:
        pass  # the child finds the words for it
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        _bring_up_to_date(path)
    finally:
        os._exit(0)


def _bring_up_to_date(path: Path) -> None:
    from app.web.http.errors import ApiError
    from app.web.store.schema import bring_up_to_date

    try:
        bring_up_to_date(path)
    except ApiError as error:
        _log.error(error.message)
    except Exception:
        _log.exception("the conversations' database can't be brought up to date")
