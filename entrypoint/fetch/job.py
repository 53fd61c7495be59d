"""What a download is asked to do; a file, since hundreds of shards don't fit on a command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WantedFile:
    """One file at the job's commit; `etag` as in the hub's listing, the file's own hash."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """Every file of `files` is in the snapshot of `commit` when the download ends well. Never holds a token."""

    endpoint: str
    repo: str
    revision: str
    commit: str
    hf_home: str
    with_token: bool
    """HF_TOKEN holds one."""
    files: tuple[WantedFile, ...]

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)
