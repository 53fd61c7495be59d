"""SQLAlchemy on the prepared file: short transactions, one writer at a time, errors as `StoreError`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.web.store.errors import from_sqlite, is_about_the_file, unavailable
from app.web.store.sqlite_file import BUSY_SECONDS

_CONNECTIONS = 4
"""Each has a page cache. Transactions take milliseconds, so a few connections serve all threads."""
_CACHE_KIB = 1024


class Database:
    """Hands out connections within a transaction."""

    def __init__(self, path: Path) -> None:
        self._engine = _engine(path, pool_size=_CONNECTIONS, max_overflow=0, pool_timeout=10)
        self._writing = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: one consistent view of the whole file.

        Raises:
            StoreError: the file can't be read.
        """
        with _translated_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction, committed at the end of the block.

        Raises:
            StoreError: the file can't be written. Nothing was.
        """
        # SQLite's own wait for a lock polls, and is not fair.
        with self._writing, _translated_errors(), self._engine.connect() as connection:
            writer = connection.execution_options(berth_writes=True)
            with writer.begin():
                yield writer

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


@contextmanager
def connect_for_migration(path: Path) -> Iterator[Connection]:
    """A connection in one write transaction, closed at the end of the block."""
    engine = _engine(path, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            writer = connection.execution_options(berth_writes=True)
            with writer.begin():
                yield writer
    finally:
        engine.dispose()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise unavailable("it is overloaded") from error
    except DBAPIError as error:
        if is_about_the_file(error.orig):
            raise from_sqlite(error.orig) from error
        raise


def _engine(path: Path, **options: Any) -> Engine:
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}, **options)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any, _record: Any) -> None:
    # Python's sqlite3 would begin transactions late, and none before DDL. Here SQLAlchemy begins them.
    connection.isolation_level = None
    # The kernel has each committed transaction, so killing a process loses none. NORMAL waits for the disk at
    # checkpoints only: a power cut may lose the last transactions, but never the file. A rollback journal needs FULL
    # for that.
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    for pragma in (
        f"synchronous = {'NORMAL' if journal == 'wal' else 'FULL'}",
        "foreign_keys = ON",
        f"cache_size = -{_CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later may fail on an outdated view, so a writer locks at once.
    writes = connection.get_execution_options().get("berth_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
