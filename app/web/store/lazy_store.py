"""Opens the store at its first use, and tries again after a failure."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.web.store.errors import StoreError, unavailable

if TYPE_CHECKING:
    from app.web.store.store import Store

RETRY_SECONDS = 2.0
_log = logging.getLogger("berth.web")


class LazyStore:
    """Opens the store once. Until then neither SQLAlchemy nor the file costs anything."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._error: StoreError | None = None
        self._tried_at = 0.0

    def open(self) -> Store:
        """The store.

        Raises:
            StoreError: it can't be used now.
        """
        with self._lock:
            if self._store is not None:
                return self._store
            if self._error is None or time.monotonic() - self._tried_at > RETRY_SECONDS:
                self._try()
            if self._store is None:
                assert self._error is not None
                raise self._error.copy()
            return self._store

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _try(self) -> None:
        self._tried_at = time.monotonic()
        if self._path is None:
            self._error = unavailable("config.json names none")
            return
        # Importing SQLAlchemy takes a tenth of a second and 13 MB; a service used through /v1 only saves both.
        from app.web.store.store import Store

        try:
            self._store = Store(self._path)
        except StoreError as error:
            if self._error is None or self._error.message != error.message:
                _log.error(error.message)
            self._error = error
