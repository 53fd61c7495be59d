"""Bringing the file's tables to what this code knows, by Alembic's migrations."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.web.store.database import connect_for_migration
from app.web.store.errors import explained, is_about_the_file, storage_unavailable
from app.web.store.sqlite_file import REVISIONS, prepare_file, revision_of

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
_log = logging.getLogger("berth.web")


def bring_up_to_date(path: Path) -> None:
    """Prepares the file and runs what migrations are missing, in one transaction.

    Raises:
        ApiError: it can't be used.
    """
    try:
        found = revision_of(path)
    except sqlite3.Error as error:
        raise explained(error) from error
    if found is not None and found not in REVISIONS:
        raise storage_unavailable(
            f"{path.name} was written by a newer Berth (its schema is {found}, this one knows up to {REVISIONS[-1]}); "
            "run that version again, or move the file away to start with an empty one"
        )
    prepare_file(path)
    if found == REVISIONS[-1]:
        return
    try:
        with connect_for_migration(path) as connection:
            upgrade(connection, REVISIONS[-1])
    except DBAPIError as error:
        if is_about_the_file(error.orig):
            raise explained(error.orig) from error
        raise storage_unavailable(f"its tables can't be brought up to date: {error.orig}") from error
    _log.info("%s: its tables are at revision %s now", path.name, REVISIONS[-1])


def upgrade(connection: Connection, revision: str) -> None:
    """Runs migrations up to `revision` on an open connection, in its transaction."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
