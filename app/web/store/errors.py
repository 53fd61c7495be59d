"""What can be wrong with the database, in the words of the API."""

from __future__ import annotations

import sqlite3

from app.web.http.errors import ApiError

_REASONS = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away to start with an empty one",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; move it away to start with an empty one",
    sqlite3.SQLITE_READONLY: "the file or its directory can't be written; give it to the user that Berth runs as",
    sqlite3.SQLITE_PERM: "the file can't be opened for want of permission",
    sqlite3.SQLITE_AUTH: "the file can't be opened for want of permission",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened; look at the owner and mode of the state directory",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_BUSY: "another process holds it; is a second Berth or a backup at work?",
    sqlite3.SQLITE_LOCKED: "another process holds it; is a second Berth or a backup at work?",
}
FULL = "storage_full"
UNAVAILABLE = "storage_unavailable"


def storage_unavailable(why: str) -> ApiError:
    """503: conversations can't be had; /v1 goes on without them."""
    return ApiError(503, f"The conversations' database can't be used: {why}.", UNAVAILABLE, None, 5)


def storage_full() -> ApiError:
    """507: nothing was stored."""
    message = "The disk that holds the conversations is full; make room and send it again. Nothing was stored."
    return ApiError(507, message, FULL, None, 30)


def explained(error: BaseException | None) -> ApiError:
    """The API's error for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return storage_full()
    return storage_unavailable(_REASONS.get(code, str(error)))


def is_about_the_file(error: BaseException | None) -> bool:
    """Whether it is the file, the disk or the rights on it that is to blame, not how it is used."""
    return (getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF) in {*_REASONS, sqlite3.SQLITE_FULL}
