"""Paths that may be missing, forbidden or something else than they seem."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from entrypoint.reasons.files import MakeWritable, NotWritable


def existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists and that this user may see."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if exists(folder))


def is_file(path: Path) -> bool:
    """Whether it is a regular file. False, never an error, if the name is too long or a parent may not be read."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether it is a folder. False, never an error, as `is_file`."""
    return stat.S_ISDIR(_mode(path))


def exists(path: Path) -> bool:
    """Whether anything is there. False, never an error, as `is_file`."""
    return _mode(path) != 0


def not_writable(folder: Path, error: OSError) -> NotWritable:
    """Why a folder can't be written: whom its nearest existing parent belongs to, and who this is."""
    parent = existing(folder)
    owner = parent.stat().st_uid
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = ""
    return NotWritable(
        folder=str(folder),
        error=error.strerror or str(error),
        parent=str(parent),
        owner=name,
        owner_uid=owner,
        uid=os.geteuid(),
    )


def make_writable(folder: Path, setting: str) -> MakeWritable:
    """The remedy for `not_writable`."""
    return MakeWritable(str(existing(folder)), os.geteuid(), setting)


def _mode(path: Path) -> int:
    """0 if nothing is there, or nothing that this user may see."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0
