"""Files from the hub into the cache: continued where they stopped, hashed as they come, in place only when right."""

from __future__ import annotations

import errno
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
from entrypoint.fetch.meter import Meter
from entrypoint.hub import messages
from entrypoint.hub.cache import HubCache
from entrypoint.hub.client import Hub
from entrypoint.hub.listing import HubError, Listing

CHUNK_BYTES = 1 << 20
PROBE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 60.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FetchError(Exception):
    """The download can't go on."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why.en)
        self.refusal = refusal


@dataclass(frozen=True)
class Patience:
    """How long silence is borne."""

    stall_seconds: float = 30.0
    """Without a byte, until the connection is given up and made anew."""
    give_up_seconds: float = 600.0
    """Without a byte, until the download fails."""


class Digest(Protocol):
    """Of hashlib."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def digest_of(file: WantedFile) -> Digest:
    """A fresh digest of the kind that the file's etag is: SHA-256, or git's SHA-1 of a blob."""
    if len(file.etag) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


class Transfer:
    """Brings the files of a job, one after the other."""

    def __init__(
        self,
        hub: Hub,
        job: Job,
        meter: Meter,
        patience: Patience,
        refuse: Callable[[HubError], Refusal],
    ) -> None:
        self.hub, self.job, self.meter, self.patience, self.refuse = hub, job, meter, patience, refuse
        self.cache = HubCache.of(Path(job.hf_home), job.repo)
        self.listing = Listing(job.repo, job.commit, ())
        self._silent_since = time.monotonic()
        self._failures = 0

    def bring(self, file: WantedFile) -> None:
        """Puts a whole and right file into the snapshot. Raises FetchError, OSError."""
        if not self._already_whole(file):
            for attempt in (1, 2):
                if self._download(file):
                    break
                if attempt == 2:
                    raise FetchError(messages.wrong_hash(file.name, self.job.repo, self.job.endpoint))
                self.meter.note(messages.mismatch(file.name, self.job.repo))
        self.cache.link(self.job.commit, file.name, file.etag)

    def _already_whole(self, file: WantedFile) -> bool:
        blob, digest = self.cache.blob(file.etag), digest_of(file)
        try:
            with blob.open("rb") as stream:
                self._take_up(stream, digest)
                size = stream.tell()
        except FileNotFoundError:
            return False
        if size == file.size and digest.hexdigest() == file.etag:
            return True
        self.meter.found(-size)
        self.meter.note(messages.mismatch(file.name, self.job.repo))
        blob.unlink()
        return False

    def _download(self, file: WantedFile) -> bool:
        """Writes the partial file to its end; moves it in place where its hash is right, else deletes it."""
        partial = self.cache.partial(file.etag)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("a+b") as stream:
            self._lock(stream, file)
            if not partial.exists() or not partial.samefile(f"/proc/self/fd/{stream.fileno()}"):
                return self._already_whole(file) or self._download(file)  # another process was through with it
            digest = digest_of(file)
            stream.seek(0)
            self._take_up(stream, digest)
            self._silent_since = time.monotonic()
            while (have := stream.tell()) < file.size:
                self._receive(file, stream, digest, have)
            right = have == file.size and digest.hexdigest() == file.etag
            if right:
                stream.flush()
                os.fsync(stream.fileno())
                partial.replace(self.cache.blob(file.etag))
            else:
                self.meter.found(-have)
                partial.unlink()
        return right

    def _take_up(self, stream: BinaryIO, digest: Digest) -> None:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            self.meter.found(len(chunk))

    def _lock(self, stream: BinaryIO, file: WantedFile) -> None:
        told = False
        while True:
            try:
                return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    self.meter.note(messages.another_downloads(file.name))
                told = True
                time.sleep(1)

    def _receive(self, file: WantedFile, stream: BinaryIO, digest: Digest, start: int) -> None:
        """One connection, until the file's end or until it breaks."""
        try:
            with self.hub.stream(self.listing, file.name, start, self.patience.stall_seconds) as chunks:
                for chunk in chunks:
                    stream.write(chunk)
                    digest.update(chunk)
                    self.meter.received(len(chunk))
                    self._silent_since, self._failures = time.monotonic(), 0
                    if stream.tell() > file.size:  # not the file that was listed; its hash will say so
                        return
            if stream.tell() < file.size:
                raise HubError("cut", "the file ended early")
        except HubError as error:
            self._wait_after(error)

    def _wait_after(self, error: HubError) -> None:
        """Pauses before the next connection, longer each time; says why. Raises FetchError when it is no use."""
        silent = time.monotonic() - self._silent_since
        self._failures += 1
        pause = error.retry_after_seconds or min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._failures - 1))
        if not error.passing or silent + pause > self.patience.give_up_seconds:
            raise FetchError(self.refuse(error))
        state: HubError | None = error
        if error.kind in ("slow", "cut"):
            state = self.hub.answers(self.listing, min(PROBE_SECONDS, self.patience.stall_seconds))
        done, total = self.meter.done_bytes, self.meter.total_bytes
        self.meter.note(messages.stalled(silent, done, total, self.job.endpoint, state, pause))
        time.sleep(pause)
