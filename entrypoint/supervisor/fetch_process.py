"""The download process: its progress, and its restart if it dies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from app.contract.codec import write_atomically
from app.contract.plan import Refusal
from app.contract.status import FetchEvent, FetchFailed
from entrypoint.fetch.job import Job, WantedFile
from entrypoint.hub.refusals import download_crashed
from entrypoint.hub.remote_headers import HubRefused, RemoteModel
from entrypoint.settings.settings import Settings
from entrypoint.state.status_writer import StatusWriter
from entrypoint.supervisor.child_process import Child, EventReader, spawn_reporting

MOST_DEATHS = 5
"""In a row, without a byte between them."""
LONGEST_PAUSE_SECONDS = 30.0
STOP_SECONDS = 3.0
log = logging.getLogger(__name__)


class FetchRun:
    """One download, in as many processes as it takes; each continues where the last one stopped."""

    def __init__(self, settings: Settings, remote: RemoteModel, folder: Path, status: StatusWriter) -> None:
        self._settings, self._status = settings, status
        self._job = folder / "fetch.json"
        files = tuple(WantedFile(file.name, file.size, file.etag) for file in remote.files)
        model, commit = remote.model, remote.listing.commit
        home, with_token = str(settings.hf_home), settings.hf_token is not None
        job = Job(
            endpoint=settings.hf_endpoint,
            repo=model.repo,
            revision=model.revision,
            commit=commit,
            hf_home=home,
            with_token=with_token,
            files=files,
        )
        write_atomically(self._job, job)
        self._deaths, self._not_before, self._most_bytes = 0, 0.0, -1
        self._refusal: Refusal | None = None
        self._child: Child | None = None
        self._reader: EventReader | None = None

    def step(self) -> bool:
        """Whether all files are there. Raises HubRefused if the download gives up."""
        if self._child is None or self._reader is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return False
        code = self._child.exit_code()  # before the events, so that the last ones are read
        for event in self._reader.read():
            self._handle(event)
        if code is None:
            return False
        self._release(self._child, self._reader)
        if self._refusal is not None:
            raise HubRefused(self._refusal)
        if code != 0:
            self._restart_later(code)
        return code == 0

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Ends the process; the bytes on disk stay for the next time."""
        if self._child is not None and self._reader is not None:
            self._child.stop(STOP_SECONDS, hurry)
            self._reader.close()
            self._child = self._reader = None

    def _start(self) -> None:
        settings = self._settings
        environment = {**settings.environment, "HF_HOME": str(settings.hf_home)}
        if settings.hf_token:
            environment["HF_TOKEN"] = settings.hf_token
        arguments = ["entrypoint.fetch", "--job", str(self._job)]
        self._child, self._reader = spawn_reporting("download", arguments, environment, FetchEvent)

    def _handle(self, event: FetchEvent) -> None:
        if isinstance(event, FetchFailed):
            self._refusal = event.refusal
            return
        if event.done_bytes > self._most_bytes:
            self._most_bytes, self._deaths = event.done_bytes, 0
        self._status.show_download(event)

    def _release(self, child: Child, reader: EventReader) -> None:
        child.release()
        reader.close()
        self._child = self._reader = None

    def _restart_later(self, code: int) -> None:
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            raise HubRefused(download_crashed(self._deaths, code))
        self._not_before = time.monotonic() + min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._deaths - 1))
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        log.error("the download process ended (%s); it restarts and continues where it stopped", how)
