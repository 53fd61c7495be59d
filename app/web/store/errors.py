"""What can go wrong in the store. `app.web.error_handlers` turns each of these into a response."""

from __future__ import annotations

import sqlite3

_REASONS = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away to start with an empty one",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; move it away to start with an empty one",
    sqlite3.SQLITE_READONLY: "the file or its directory isn't writable; give it to the user that Berth runs as",
    sqlite3.SQLITE_PERM: "permission to open the file is denied",
    sqlite3.SQLITE_AUTH: "permission to open the file is denied",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened; check the owner and mode of the state directory",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_BUSY: "another process has locked it; is a second Berth or a backup running?",
    sqlite3.SQLITE_LOCKED: "another process has locked it; is a second Berth or a backup running?",
}


class StoreError(Exception):
    """A request that the store could not serve. Nothing was changed.

    `code` and `param`, the name of the field at fault, are those of the API's error.
    """

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param

    def copy(self) -> StoreError:
        """A new exception that says the same: raised twice, one object would collect tracebacks."""
        return type(self)(self.message, self.code, self.param)


class NotFoundError(StoreError):
    """There is no such conversation or message."""


class ConflictError(StoreError):
    """The request contradicts what is stored."""


class InvalidFieldError(StoreError):
    """A field refers to something that isn't there or doesn't fit."""


class UnavailableError(StoreError):
    """The file can't be used; the message says why. It may work again later."""


class FullError(StoreError):
    """The disk is full."""


def invalid_field(param: str, message: str) -> InvalidFieldError:
    """The error for a field, by its name."""
    return InvalidFieldError(f"{param}: {message}", "invalid_value", param)


def unavailable(why: str) -> UnavailableError:
    """The error for a file that can't be used."""
    return UnavailableError(f"The conversations' database can't be used: {why}.", "storage_unavailable")


def from_sqlite(error: BaseException | None) -> StoreError:
    """The store's error for one of SQLite's."""
    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        message = "The disk that holds the conversations is full. Free some space and try again. Nothing was stored."
        return FullError(message, "storage_full")
    return unavailable(_REASONS.get(code, str(error)))


def is_about_the_file(error: BaseException | None) -> bool:
    """Whether the file, the disk or permissions are at fault, not the way they are used."""
    return _primary_code(error) in {*_REASONS, sqlite3.SQLITE_FULL}


def _primary_code(error: BaseException | None) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF
