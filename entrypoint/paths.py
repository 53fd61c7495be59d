"""Paths that may be missing, forbidden or not what they seem."""

from __future__ import annotations

import stat
from pathlib import Path


def existing(path: Path) -> Path:
    """The path itself, or its nearest parent that is there and may be seen."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if exists(folder))


def is_file(path: Path) -> bool:
    """Whether a file is there to be read. Path.is_file raises where a name is too long or above it nothing is shown."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """See `is_file`."""
    return stat.S_ISDIR(_mode(path))


def exists(path: Path) -> bool:
    """See `is_file`."""
    return _mode(path) != 0


def _mode(path: Path) -> int:
    """0 where nothing is there, or nothing that this user is shown."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0
