"""What a hub answers, and how it fails to answer; no request is made here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from entrypoint.checkpoint.safetensors_header import CheckpointError
from entrypoint.checkpoint.source import parse_object
from entrypoint.reasons.hub import TimedOut
from entrypoint.reasons.reason import Reason

PUBLIC_HUB = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
HubErrorKind = Literal[
    "unreachable", "slow", "cut", "unauthorised", "gated", "no_model", "no_revision", "busy", "broken"
]


class HubError(Exception):
    """Why a request to the hub failed; `detail` holds no address but the endpoint's, and never a token."""

    def __init__(
        self, kind: HubErrorKind, detail: Reason, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail
        self.status, self.retry_after_seconds = status, retry_after_seconds

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in ("unreachable", "slow", "cut", "busy", "broken")


class Deadline:
    """The time by which several requests must have finished."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left. Raises HubError if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise HubError("slow", TimedOut(self.seconds))
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
    """A model's files at one commit; all later requests name this commit."""

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
        raise CheckpointError(f"{url} names no commit or no files; is HF_ENDPOINT a model hub?")
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
    """A model that is not on this machine, or not all of it."""

    repo: str
    revision: str
    folders: tuple[str, ...] = ()
    """Where it was looked for and not found."""
