"""Migrates a file's tables to the newest revision, with Alembic."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.web.store.database import connect_for_migration
from app.web.store.errors import from_sqlite, is_about_the_file, unavailable
from app.web.store.sqlite_file import REVISIONS, prepare_file, revision_of

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
_log = logging.getLogger("berth.web")


def migrate(path: Path) -> None:
    """Prepares the file and runs the migrations that it lacks, in one transaction.

    Raises:
        StoreError: the file can't be used.
    """
    try:
        revision = revision_of(path)
    except sqlite3.Error as error:
        raise from_sqlite(error) from error
    if revision is not None and revision not in REVISIONS:
        raise unavailable(
            f"{path.name} was written by a newer Berth (its schema is {revision}, this version knows up to "
            f"{REVISIONS[-1]}); run that version again, or move the file away to start with an empty one"
        )
    prepare_file(path)
    if revision == REVISIONS[-1]:
        return
    try:
        with connect_for_migration(path) as connection:
            upgrade(connection, REVISIONS[-1])
    except DBAPIError as error:
        if is_about_the_file(error.orig):
            raise from_sqlite(error.orig) from error
        raise unavailable(f"its tables can't be migrated: {error.orig}") from error
    _log.info("%s: migrated to revision %s", path.name, REVISIONS[-1])


def upgrade(connection: Connection, revision: str) -> None:
    """Runs migrations up to `revision` on an open connection, in its transaction."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Importing Alembic takes a quarter of a second; most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
