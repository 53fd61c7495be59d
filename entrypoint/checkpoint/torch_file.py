"""The tensors of a `.bin` file written by `torch.save`: names, dtypes and shapes, without torch and without weights.

The file is a zip: `data.pkl` says which storage each tensor is in, `data/<key>` has the bytes of a storage
(torch/serialization.py). The result is that of `torch.load(path, map_location="meta", weights_only=True)`, and it is as
safe: the pickle's instructions are interpreted here, only those that torch's weights-only reader knows. A global is a
name to look up in a table; nothing is imported and nothing is called. Files from before torch 1.6 are not zips and are
refused.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from dataclasses import dataclass
from pathlib import Path

from entrypoint.checkpoint.safe_open import CheckpointError, open_regular
from entrypoint.checkpoint.safetensors_header import DTYPE_BYTES, HeaderTensor
from entrypoint.checkpoint.torch_pickle import read_views
from entrypoint.checkpoint.torch_tensors import TensorView, TorchPickleError

PICKLE_LIMIT_BYTES = 16_000_000
"""About 200 bytes per tensor are usual; ChatGLM3-6B has 199 tensors."""
DIRECTORY_LIMIT_BYTES = 64_000_000
LOCAL_HEADER_BYTES = 30
REMEDY = "use the safetensors files, or save it again with a current torch.save"


@dataclass(frozen=True)
class _Archive:
    """The contents of the zip, by name below its one folder."""

    sizes: dict[str, int]
    """In bytes."""
    pickle: bytes


class _LimitedReader(io.RawIOBase):
    """A file of which a limited part is read, whatever the zip's directory says."""

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


def read_torch_file(path: Path) -> dict[str, HeaderTensor]:
    """The tensors of one local file, by name. Tensors that share a storage count its bytes once.

    Raises:
        CheckpointError: it is not such a file, contains anything but tensors, or its sizes are wrong.
    """
    with open_regular(path, "copy it again") as (file, size):
        contents = _open_zip(path, file, size)
    try:
        views = read_views(contents.pickle)
    except TorchPickleError as error:
        raise CheckpointError(f"{path}: {error}; {REMEDY}") from error
    return _tensors(path, views, contents.sizes)


def _open_zip(path: Path, file: io.BufferedReader, size: int) -> _Archive:
    try:
        with zipfile.ZipFile(_LimitedReader(file)) as archive:
            records = archive.infolist()
            _check_records(path, records, size)
            (pickle,) = [record for record in records if record.filename.partition("/")[2] == "data.pkl"]
            if pickle.file_size > PICKLE_LIMIT_BYTES:
                raise CheckpointError(f"{path}: its data.pkl is {pickle.file_size:,} bytes; {REMEDY}")
            sizes = {record.filename.partition("/")[2]: record.file_size for record in records}
            return _Archive(sizes, archive.read(pickle))
    except zipfile.BadZipFile as error:
        file.seek(0)
        if file.read(2) == b"PK":
            raise CheckpointError(f"{path}: truncated or damaged ({error}); copy it again") from error
        raise CheckpointError(f"{path}: not in the zip format of torch.save since torch 1.6; {REMEDY}") from error
    except (ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a file of torch.save; {REMEDY}") from error


def _check_records(path: Path, records: list[zipfile.ZipInfo], size: int) -> None:
    """Raises CheckpointError unless the records are uncompressed, do not overlap and are within the file."""
    records = sorted(records, key=lambda record: record.header_offset)
    for record, following in itertools.pairwise([*records, None]):
        assert record is not None
        end = record.header_offset + LOCAL_HEADER_BYTES + record.file_size
        stored = record.compress_type == zipfile.ZIP_STORED and record.file_size == record.compress_size
        if not stored or end > (following.header_offset if following else size):
            raise CheckpointError(
                f"{path}: its entry {record.filename[:80]!r} is compressed or out of place; copy it again"
            )


def _tensors(path: Path, views: dict[str, TensorView], sizes: dict[str, int]) -> dict[str, HeaderTensor]:
    unused: dict[str, int] = {}  # bytes of each storage that no tensor has counted yet
    tensors = {}
    for name, view in views.items():
        _check_view(path, name, view, sizes)
        rest = unused.get(view.storage.key, view.storage.bytes)
        count = min(rest, view.elements * DTYPE_BYTES[view.dtype])
        unused[view.storage.key] = rest - count
        tensors[name] = HeaderTensor(path.name, view.dtype, view.shape, count)
    return tensors


def _check_view(path: Path, name: str, view: TensorView, sizes: dict[str, int]) -> None:
    storage = view.storage
    size = sizes.get(f"data/{storage.key}")
    if size != storage.bytes:
        fault = "is missing" if size is None else f"has {size:,}"
        raise CheckpointError(
            f"{path}: tensor {name[:80]!r} needs a storage of {storage.bytes:,} bytes, which {fault}; copy it again"
        )
    if view.end * DTYPE_BYTES[view.dtype] > storage.bytes:
        raise CheckpointError(f"{path}: tensor {name[:80]!r} exceeds its storage; copy it again")
