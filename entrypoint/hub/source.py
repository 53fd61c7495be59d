"""A checkpoint at the hub: config, index and headers of one commit by range requests, cached files from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any, TypeVar

from entrypoint.checkpoint.safetensors_header import (
    LENGTH_BYTES,
    CheckpointError,
    HeaderTensor,
    header_length,
    parse_header,
)
from entrypoint.checkpoint.source import (
    CONFIG_LIMIT_BYTES,
    INDEX,
    SINGLE_FILE,
    TORCH_INDEX,
    check_size,
    indexed_files,
    join_headers,
    parse_object,
)
from entrypoint.checkpoint.torch_index import tensors_from_total
from entrypoint.hub.cache import HubCache
from entrypoint.hub.listing import Deadline, HubError, Listing, RemoteFile
from entrypoint.reasons.hub import FileTooShort
from entrypoint.timeouts import start_each

if TYPE_CHECKING:
    from entrypoint.hub.client import Hub

T = TypeVar("T")
FIRST_READ_BYTES = 128 * 1024
"""Contains the whole header of nearly every published shard; a longer one takes a second request."""
READERS = 6
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What a download takes beside the weights, if the model has it. Never code."""


class HubSource:
    """`Source` over one listing. Its methods raise HubError, too, if the hub fails.

    `progress` is called with the headers that have been read, and how many there are.
    """

    def __init__(
        self, hub: Hub, listing: Listing, cache: HubCache, deadline: Deadline, progress: Callable[[int, int], None]
    ) -> None:
        self.hub, self.listing, self.cache, self.deadline, self.progress = hub, listing, cache, deadline, progress
        self._objects: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> str:
        return f"{self.listing.repo}@{self.listing.commit[:8]}/{name}".rstrip("/")

    def read_json(self, name: str) -> dict[str, Any]:
        if name not in self._objects:
            file = self._file(name)
            check_size(self.path(name), file.size)
            self._objects[name] = parse_object(self.path(name), self._read(file, 0, CONFIG_LIMIT_BYTES))
        return self._objects[name]

    def start_of(self, name: str, count: int) -> bytes:
        return self._read(self._file(name), 0, count)

    def tensors(self) -> dict[str, HeaderTensor]:
        names = self._weight_names()
        if TORCH_INDEX in names:
            path = self.path(TORCH_INDEX)
            return tensors_from_total(path, self.read_json(TORCH_INDEX), self.read_json("config.json"))
        files = [self._file(name) for name in names if name != INDEX]
        headers = in_parallel(self._header, files, lambda done: self.progress(done, len(files)))
        return join_headers(self.path(""), {}, dict(zip((file.name for file in files), headers, strict=True)))

    def needed(self) -> tuple[RemoteFile, ...]:
        """The files to download, small ones first: one kind of weights, config and tokenizer, never code."""
        names = [name for name in SMALL_FILES if self.listing.file(name)]
        return tuple(self._file(name) for name in (*names, *self._weight_names()))

    def _weight_names(self) -> list[str]:
        """The index, if there is one, and the weight files."""
        if self.listing.file(INDEX):
            return [INDEX, *indexed_files(self.path(INDEX), self.read_json(INDEX))]
        if self.listing.file(SINGLE_FILE):
            return [SINGLE_FILE]
        if self.listing.file(TORCH_INDEX):
            return [TORCH_INDEX, *indexed_files(self.path(TORCH_INDEX), self.read_json(TORCH_INDEX))]
        if any(file.name.endswith(".bin") for file in self.listing.files):
            raise CheckpointError(
                f"{self.path('')} has a .bin file without an index, which can't be planned before it is downloaded; "
                "download it yourself and set GLM_MODEL to its folder"
            )
        raise CheckpointError(
            f"{self.path('')} has no {SINGLE_FILE} and no {INDEX}; choose a model that has one of them"
        )

    def _header(self, file: RemoteFile) -> dict[str, HeaderTensor]:
        path, count = self.path(file.name), min(FIRST_READ_BYTES, file.size)
        start = self._read(file, 0, count)
        length = header_length(path, start, file.size)
        rest = LENGTH_BYTES + length - len(start)
        if rest > 0:
            start += self._read(file, len(start), rest)
        return parse_header(path, start[LENGTH_BYTES : LENGTH_BYTES + length], file.size)

    def _file(self, name: str) -> RemoteFile:
        file = self.listing.file(name)
        if file is None:
            raise CheckpointError(f"{self.path(name)} is missing at {self.hub.endpoint}; a checkpoint needs it")
        return file

    def _read(self, file: RemoteFile, start: int, count: int) -> bytes:
        count = min(count, file.size - start)
        if count <= 0:
            return b""
        cached = self.cache.snapshot(self.listing.commit) / file.name
        try:
            with cached.open("rb") as stream:
                stream.seek(start)
                return stream.read(count)
        except OSError:
            data = self.hub.read(self.listing, file.name, start, count, self.deadline)
        if len(data) < count:
            raise HubError("cut", FileTooShort(file.name, start + len(data), file.size))
        return data


def in_parallel(
    work: Callable[[RemoteFile], T], files: Sequence[RemoteFile], progress: Callable[[int], None]
) -> list[T]:
    """The results of `work` for every file, a few at a time; `progress` is called with how many are done.

    Raises:
        HubError, CheckpointError: the first that `work` raises.
    """
    futures = start_each(work, files, READERS)
    progress(0)
    for done, future in enumerate(as_completed(futures), start=1):
        future.result()
        progress(done)
    return [future.result() for future in futures]
