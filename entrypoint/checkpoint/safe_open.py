"""Opening what a stranger put into a folder: never waits for a pipe, never reads a directory or a device."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint that can't be read or is not what it says; one line that names file and remedy."""


@contextmanager
def opened(path: Path, missing: str) -> Iterator[tuple[BufferedReader, int]]:
    """A regular file to read, and its size in bytes; `missing` says what a file that is not there means.

    Raises:
        CheckpointError: there is no such file, or it can't be read, here or in the block.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} is no file but a pipe or device; put the checkpoint's own file there")
            yield file, status.st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; {missing}") from error
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}; copy it again") from error


def _without_waiting(path: str, flags: int) -> int:
    # A pipe that nobody writes to would otherwise hold up the start for ever.
    return os.open(path, flags | os.O_NONBLOCK)
