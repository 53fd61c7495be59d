"""JSON files that the supervisor keeps up to date: a full disk is logged once and ends nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from app.contract.codec import write_atomically

log = logging.getLogger(__name__)


class KeptFiles:
    """Replaces files and remembers which of them could not be written."""

    def __init__(self) -> None:
        self._failed: set[Path] = set()

    def write(self, path: Path, value: Any) -> bool:
        """Replaces a JSON file; returns whether that succeeded."""
        try:
            write_atomically(path, value)
        except OSError as error:
            if path not in self._failed:
                log.error("%s can't be written: %s. The service continues without it", path, error.strerror or error)
            self._failed.add(path)
            return False
        if path in self._failed:
            self._failed.remove(path)
            log.info("%s can be written again", path)
        return True
