"""Opens files of untrusted folders: never waits for a pipe, never reads a directory or a device."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint can't be read or is not what it claims to be; the text is one line with the file and the remedy."""


@contextmanager
def open_regular(path: Path, missing: str) -> Iterator[tuple[BufferedReader, int]]:
    """A regular file to read, and its size in bytes; `missing` ends the message about a file that does not exist.

    Raises:
        CheckpointError: there is no such file, or it can't be read, when it is opened or in the block.
    """
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} is not a regular file; replace it with the checkpoint's own file")
            yield file, status.st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; {missing}") from error
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}; copy it again") from error


def _open_nonblocking(path: str, flags: int) -> int:
    # Otherwise a pipe that nobody writes to would block the start for ever.
    return os.open(path, flags | os.O_NONBLOCK)
