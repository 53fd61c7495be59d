"""Which tables a file has, and the way to newer ones at the start: small, since gunicorn's master imports it."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from app.web.store.sqlite_file import REVISIONS, revision_of

_log = logging.getLogger("berth.web")


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
