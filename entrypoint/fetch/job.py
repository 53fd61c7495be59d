"""What to download; passed as a file, since hundreds of shards don't fit on a command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WantedFile:
    """One file at the job's commit; `etag` is its hash, as in the hub's listing."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """After a successful download all `files` are in the snapshot of `commit`. It never contains a token."""

    endpoint: str
    repo: str
    revision: str
    commit: str
    hf_home: str
    with_token: bool
    """HF_TOKEN has one."""
    files: tuple[WantedFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)
