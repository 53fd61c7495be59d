"""Migrates the database when the service starts. It imports little, because gunicorn's master imports it."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from app.web.store.errors import StoreError
from app.web.store.sqlite_file import REVISIONS, revision_of

_log = logging.getLogger("berth.web")


def migrate_in_child(path: Path) -> None:
    """Migrates in a child process, so that the caller keeps neither a connection nor the imported modules.

    A failure is one line in the log. Requests meet it again and report it to their clients.
    """
    try:
        if revision_of(path) == REVISIONS[-1]:
            return
    except sqlite3.Error:
        pass  # the child reports it
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        _migrate(path)
    finally:
        os._exit(0)


def _migrate(path: Path) -> None:
    # SQLAlchemy and Alembic: imported in the child only, to keep the master small.
    from app.web.store.schema import migrate

    try:
        migrate(path)
    except StoreError as error:
        _log.error(error.message)
    except Exception:
        _log.exception("the conversations' database can't be migrated")
