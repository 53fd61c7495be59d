"""Downloads files into the cache: each resumes, is hashed as it arrives, and counts only if its hash is right."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from app.contract.plan import Refusal
from entrypoint.fetch.job import Job, WantedFile
from entrypoint.fetch.meter import ProgressMeter
from entrypoint.hub.cache import HubCache
from entrypoint.hub.client import Hub
from entrypoint.hub.listing import HubError, Listing
from entrypoint.hub.refusals import wrong_hash
from entrypoint.reasons.download import DownloadStalled, HashMismatch, OtherDownload
from entrypoint.reasons.hub import FileTooShort

CHUNK_BYTES = 1 << 20
PROBE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 60.0


class FetchError(Exception):
    """The download can't continue."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why.en)
        self.refusal = refusal


@dataclass(frozen=True)
class Patience:
    """How long to wait if no data arrives."""

    stall_seconds: float = 30.0
    """Until the connection is closed and a new one is made."""
    give_up_seconds: float = 600.0
    """Until the download fails."""


class Digest(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def digest_of(file: WantedFile) -> Digest:
    """A new hash of the kind of the file's etag: SHA-256, or git's SHA-1 of a blob."""
    if len(file.etag) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


class Downloader:
    """Downloads the files of a job, one after the other."""

    def __init__(
        self,
        hub: Hub,
        job: Job,
        meter: ProgressMeter,
        patience: Patience,
        refuse: Callable[[HubError], Refusal],
    ) -> None:
        self.hub, self.job, self.meter, self.patience, self.refuse = hub, job, meter, patience, refuse
        self.cache = HubCache.of(Path(job.hf_home), job.repo)
        self.listing = Listing(job.repo, job.commit, ())
        self._silent_since = time.monotonic()
        self._failures = 0

    def fetch(self, file: WantedFile) -> None:
        """Puts a complete file with the right hash into the snapshot. Raises FetchError, OSError."""
        if not self._is_complete(file):
            for attempt in (1, 2):
                if self._download(file):
                    break
                if attempt == 2:
                    raise FetchError(wrong_hash(file.name, self.job.repo, self.job.endpoint))
                self.meter.note(HashMismatch(file.name, self.job.repo))
        self.cache.link(self.job.commit, file.name, file.etag)

    def _is_complete(self, file: WantedFile) -> bool:
        blob, digest = self.cache.blob(file.etag), digest_of(file)
        try:
            with blob.open("rb") as stream:
                self._hash_stored(stream, digest)
                size = stream.tell()
        except FileNotFoundError:
            return False
        if size == file.size and digest.hexdigest() == file.etag:
            return True
        self.meter.add_stored(-size)
        self.meter.note(HashMismatch(file.name, self.job.repo))
        blob.unlink()
        return False

    def _download(self, file: WantedFile) -> bool:
        """Writes the rest of the partial file; moves it in place if its hash is right, else deletes it."""
        partial = self.cache.partial(file.etag)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("a+b") as stream:
            self._lock(stream, file)
            if not partial.exists() or not partial.samefile(f"/proc/self/fd/{stream.fileno()}"):
                return self._is_complete(file) or self._download(file)  # another process has finished it
            digest = digest_of(file)
            stream.seek(0)
            self._hash_stored(stream, digest)
            self._silent_since = time.monotonic()
            while (position := stream.tell()) < file.size:
                self._receive(file, stream, digest, position)
            right = position == file.size and digest.hexdigest() == file.etag
            if right:
                stream.flush()
                os.fsync(stream.fileno())
                partial.replace(self.cache.blob(file.etag))
            else:
                self.meter.add_stored(-position)
                partial.unlink()
        return right

    def _hash_stored(self, stream: BinaryIO, digest: Digest) -> None:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            self.meter.add_stored(len(chunk))

    def _lock(self, stream: BinaryIO, file: WantedFile) -> None:
        waiting = False
        while True:
            try:
                return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    self.meter.note(OtherDownload(file.name))
                waiting = True
                time.sleep(1)

    def _receive(self, file: WantedFile, stream: BinaryIO, digest: Digest, start: int) -> None:
        """Reads one connection until the end of the file or until the connection fails."""
        try:
            with self.hub.stream(self.listing, file.name, start, self.patience.stall_seconds) as chunks:
                for chunk in chunks:
                    stream.write(chunk)
                    digest.update(chunk)
                    self.meter.add_received(len(chunk))
                    self._silent_since, self._failures = time.monotonic(), 0
                    if stream.tell() > file.size:  # not the listed file; its hash will be wrong
                        return
            if stream.tell() < file.size:
                raise HubError("cut", FileTooShort(file.name, stream.tell(), file.size))
        except HubError as error:
            self._wait_after(error)

    def _wait_after(self, error: HubError) -> None:
        """Reports why and pauses before the next connection, longer each time. Raises FetchError if that is no use."""
        silent = time.monotonic() - self._silent_since
        self._failures += 1
        pause = error.retry_after_seconds or min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._failures - 1))
        if not error.is_transient or silent + pause > self.patience.give_up_seconds:
            raise FetchError(self.refuse(error))
        hub_error: HubError | None = error
        if error.kind in ("slow", "cut"):
            hub_error = self.hub.check(self.listing, min(PROBE_SECONDS, self.patience.stall_seconds))
        self.meter.note(
            DownloadStalled(
                seconds=silent,
                done_bytes=self.meter.done_bytes,
                total_bytes=self.meter.total_bytes,
                endpoint=self.job.endpoint,
                hub_error=hub_error.detail if hub_error else None,
                retry_seconds=pause,
            )
        )
        time.sleep(pause)
