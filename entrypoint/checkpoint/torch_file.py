"""The tensors of a `.bin` file as `torch.save` writes it: names, dtypes and shapes, without torch and without weights.

The file is a zip: `data.pkl` says which tensors lie in which storages, `data/<key>` holds a storage's bytes
(torch/serialization.py). The same as `torch.load(path, map_location="meta", weights_only=True)`, and as careful: the
pickle's instructions are interpreted here, those few that torch's own weights-only reader knows. A global is a name to
look up in a table; nothing is imported and nothing is called. Files from before torch 1.6 are no zips and are refused.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from dataclasses import dataclass
from pathlib import Path

from entrypoint.checkpoint.safe_open import CheckpointError, opened
from entrypoint.checkpoint.safetensors_header import DTYPE_BYTES, Tensor
from entrypoint.checkpoint.torch_pickle import read_views
from entrypoint.checkpoint.torch_tensors import TorchPickleError, View

PICKLE_LIMIT_BYTES = 16_000_000
"""Some 200 bytes a tensor are usual; ChatGLM3-6B has 199 tensors."""
DIRECTORY_LIMIT_BYTES = 64_000_000
LOCAL_HEADER_BYTES = 30
REMEDY = "take the safetensors files, or save it again with today's torch.save"


@dataclass(frozen=True)
class _Entries:
    """The zip's records below its one folder: bytes by name."""

    sizes: dict[str, int]
    pickle: bytes


class _Bounded(io.RawIOBase):
    """A file that is never read whole, whatever the zip's directory says."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(DIRECTORY_LIMIT_BYTES + 1 if size < 0 else min(size, DIRECTORY_LIMIT_BYTES + 1))
        if len(data) > DIRECTORY_LIMIT_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return data


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one local file, by name. Tensors that share a storage count its bytes once.

    Raises:
        CheckpointError: it is no such file, holds anything but tensors, or is not what it says.
    """
    with opened(path, "copy it again") as (file, size):
        entries = _open_zip(path, file, size)
    try:
        views = read_views(entries.pickle)
    except TorchPickleError as error:
        raise CheckpointError(f"{path}: {error}; {REMEDY}") from error
    return _tensors(path, views, entries.sizes)


def _open_zip(path: Path, file: io.BufferedReader, size: int) -> _Entries:
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            records = archive.infolist()
            _check_records(path, records, size)
            (pickled,) = [record for record in records if record.filename.partition("/")[2] == "data.pkl"]
            if pickled.file_size > PICKLE_LIMIT_BYTES:
                raise CheckpointError(f"{path}: its data.pkl is {pickled.file_size:,} bytes; {REMEDY}")
            sizes = {record.filename.partition("/")[2]: record.file_size for record in records}
            return _Entries(sizes, archive.read(pickled))
    except zipfile.BadZipFile as error:
        file.seek(0)
        if file.read(2) == b"PK":
            raise CheckpointError(f"{path}: cut short or damaged ({error}); copy it again") from error
        raise CheckpointError(f"{path}: not in the zip format that torch.save writes since 1.6; {REMEDY}") from error
    except (ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a file that torch.save wrote; {REMEDY}") from error


def _check_records(path: Path, records: list[zipfile.ZipInfo], size: int) -> None:
    """Stored as they are, one behind the other, within the file."""
    records = sorted(records, key=lambda record: record.header_offset)
    for record, following in itertools.pairwise([*records, None]):
        assert record is not None
        end = record.header_offset + LOCAL_HEADER_BYTES + record.file_size
        stored = record.compress_type == zipfile.ZIP_STORED and record.file_size == record.compress_size
        if not stored or end > (following.header_offset if following else size):
            raise CheckpointError(f"{path}: its entry {record.filename[:80]!r} is not what it says; copy it again")


def _tensors(path: Path, views: dict[str, View], sizes: dict[str, int]) -> dict[str, Tensor]:
    left: dict[str, int] = {}
    found = {}
    for name, view in views.items():
        _check_view(path, name, view, sizes)
        room = left.get(view.storage.key, view.storage.bytes)
        count = min(room, view.elements * DTYPE_BYTES[view.dtype])
        left[view.storage.key] = room - count
        found[name] = Tensor(path.name, view.dtype, view.shape, count)
    return found


def _check_view(path: Path, name: str, view: View, sizes: dict[str, int]) -> None:
    storage = view.storage
    there = sizes.get(f"data/{storage.key}")
    if there != storage.bytes:
        held = "is not there" if there is None else f"holds {there:,}"
        raise CheckpointError(
            f"{path}: tensor {name[:80]!r} needs a storage of {storage.bytes:,} bytes, its entry {held}; copy it again"
        )
    if view.end * DTYPE_BYTES[view.dtype] > storage.bytes:
        raise CheckpointError(f"{path}: tensor {name[:80]!r} reaches beyond its storage; copy it again")
