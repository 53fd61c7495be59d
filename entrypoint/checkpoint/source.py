"""Where a checkpoint's files are: a folder on this machine, or the hub. Both are checked in the same way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from entrypoint.checkpoint.safe_open import open_regular
from entrypoint.checkpoint.safetensors_header import CheckpointError, HeaderTensor, read_header
from entrypoint.checkpoint.torch_file import read_torch_file
from entrypoint.paths import is_file

CONFIG_LIMIT_BYTES = 10_000_000
INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
TORCH_INDEX = "pytorch_model.bin.index.json"
TORCH_FILE = "pytorch_model.bin"


class Source(Protocol):
    """A checkpoint's small files and headers; weights are not read. Every method raises CheckpointError."""

    def path(self, name: str) -> str:
        """A file's name in messages."""

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object."""

    def start_of(self, name: str, count: int) -> bytes:
        """At most the first `count` bytes of a file."""

    def tensors(self) -> dict[str, HeaderTensor]:
        """Every tensor of every weight file."""


class LocalFolder:
    """`Source` of a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        with open_regular(path, "a checkpoint folder needs it") as (file, size):
            check_size(str(path), size)
            return parse_object(str(path), file.read(CONFIG_LIMIT_BYTES))

    def start_of(self, name: str, count: int) -> bytes:
        with open_regular(self.folder / name, "the tokenizer needs it") as (file, _):
            return file.read(count)

    def tensors(self) -> dict[str, HeaderTensor]:
        index, read, single = self._kind()
        if single is not None:
            return read(self.folder / single)
        files = weight_map(self.path(index), self.read_json(index))
        headers = {path.name: read(path) for path in self.weight_files()}
        return join_headers(self.path(index), files, headers)

    def weight_files(self) -> list[Path]:
        """The weight files. Raises CheckpointError, also if one does not exist."""
        index, _, single = self._kind()
        names = [single] if single is not None else indexed_files(self.path(index), self.read_json(index))
        for name in names:
            if not is_file(self.folder / name):
                raise CheckpointError(f"{self.folder / name} is missing, but {index} names it; copy it again")
        return [self.folder / name for name in names]

    def _kind(self) -> tuple[str, Callable[[Path], dict[str, HeaderTensor]], str | None]:
        """The index, the function that reads the files, and the file if it is the only one; safetensors come first."""
        for index, single, read in ((INDEX, SINGLE_FILE, read_header), (TORCH_INDEX, TORCH_FILE, read_torch_file)):
            if os.path.lexists(self.folder / index):
                return index, read, None
            if os.path.lexists(self.folder / single):
                return index, read, single
        raise CheckpointError(
            f"{self.folder} has none of {INDEX}, {SINGLE_FILE}, {TORCH_INDEX}, {TORCH_FILE}; "
            "give the folder of a checkpoint with its weights"
        )


def join_headers(
    path: str, files: Mapping[str, str], headers: Mapping[str, Mapping[str, HeaderTensor]]
) -> dict[str, HeaderTensor]:
    """The tensors of all files; each must be in the file that the index names. `files` is its weight_map.

    Raises:
        CheckpointError: a tensor is in two files, or in another one than the index names.
    """
    joined: dict[str, HeaderTensor] = {}
    for file, tensors in headers.items():
        for name, tensor in tensors.items():
            if name in joined:
                raise CheckpointError(
                    f"{path}: tensor {name[:80]!r} is in {joined[name].file} and in {file}; copy the files again"
                )
            joined[name] = tensor
    for name, file in files.items():
        if name in joined and joined[name].file != file:
            raise CheckpointError(
                f"{path}: tensor {name[:80]!r} is in {joined[name].file}, not in {file[:80]}; copy the files again"
            )
    return joined


def weight_map(path: str, index: Mapping[str, Any]) -> dict[str, str]:
    """The weight_map of an index: file name by tensor. Raises CheckpointError if one is not a plain file name."""
    files = index.get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise CheckpointError(f"{path}: weight_map must name a file for each tensor; copy it again")
    for name in set(files.values()):
        if Path(name).name != name or name in ("", "..") or "\0" in name:
            raise CheckpointError(f"{path}: {name[:80]!r} is not a file name; use the published index")
    return files


def indexed_files(path: str, index: Mapping[str, Any]) -> list[str]:
    """The files that an index names, sorted. Raises CheckpointError."""
    return sorted(set(weight_map(path, index).values()))


def check_size(path: str, size: int) -> None:
    """Raises CheckpointError if a JSON file is larger than any published one."""
    if size > CONFIG_LIMIT_BYTES:
        raise CheckpointError(f"{path} is {size:,} bytes, larger than any published one; copy it again")


def parse_object(path: str, text: bytes) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError naming the file."""
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); copy it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must be a JSON object; copy it again")
    return value
