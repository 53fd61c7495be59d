"""What a hub answers, and what keeps it from answering; no request is made here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from entrypoint.checkpoint.safetensors_header import CheckpointError
from entrypoint.checkpoint.source import parse_object

PUBLIC_HUB = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
Kind = Literal["unreachable", "slow", "cut", "unauthorised", "gated", "no_model", "no_revision", "busy", "broken"]


class HubError(Exception):
    """What kept the hub from answering; `detail` holds no address but the endpoint's, and never a token."""

    def __init__(
        self, kind: Kind, detail: str, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail
        self.status, self.retry_after_seconds = status, retry_after_seconds

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in ("unreachable", "slow", "cut", "busy", "broken")


class Deadline:
    """A moment by which several requests have to be through."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left. Raises HubError when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise HubError("slow", f"timed out after {self.seconds:.0f} s")
        return left


@dataclass(frozen=True)
class RemoteFile:
    """One file at a commit."""

    name: str
    size: int
    etag: str
    """Names the blob in the cache: the SHA-256 of a file in large file storage, else git's SHA-1 of it as a blob."""


@dataclass(frozen=True)
class Listing:
    """A model's files at one commit; everything after is asked of this commit alone."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]

    def file(self, name: str) -> RemoteFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)


def parse_listing(repo: str, url: str, text: bytes) -> Listing:
    """A listing from the hub's JSON; files in subfolders are left out. Raises CheckpointError."""
    value = parse_object(url, text)
    commit, siblings = value.get("sha"), value.get("siblings")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise CheckpointError(f"{url} names no commit and no files; is HF_ENDPOINT a hub?")
    files = [_file(entry) for entry in siblings if isinstance(entry, dict)]
    return Listing(repo, commit, tuple(file for file in files if file is not None))


def _file(entry: dict[str, Any]) -> RemoteFile | None:
    lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else None
    name, size, etag = entry.get("rfilename"), entry.get("size"), entry.get("blobId")
    if lfs:
        size, etag = lfs.get("size", size), lfs.get("sha256")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name, re.ASCII) or name.startswith("."):
        return None
    if type(size) is not int or size < 0 or not isinstance(etag, str):
        return None
    return RemoteFile(name, size, etag) if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag) else None


@dataclass(frozen=True)
class HubModel:
    """A model that is not on this machine, or not whole."""

    repo: str
    revision: str
    looked_in: tuple[str, ...] = ()
    """Folders that it was not found in."""
