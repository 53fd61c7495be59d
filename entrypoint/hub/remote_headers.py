"""Reads what the plan needs of a model at the hub, in the background: no signal and no page waits for the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.contract.plan import Refusal, Text
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, check_checkpoint
from entrypoint.hub import messages
from entrypoint.hub.cache import HubCache
from entrypoint.hub.listing import Deadline, HubError, HubModel, Listing, RemoteFile
from entrypoint.hub.source import HubSource
from entrypoint.settings.settings import Settings
from entrypoint.timeouts import start

if TYPE_CHECKING:
    from entrypoint.hub.client import Hub

DEFAULT_ANSWER_SECONDS = 3.0
"""A model that nobody asked for by name is not waited for longer."""
ANSWER_SECONDS = 20.0
HEADERS_SECONDS = 60.0
"""For config, index and all headers together."""
ATTEMPTS = 3
"""At the hub's first answer, while the deadline allows; not for a default."""
PAUSE_SECONDS = 1.0
POLL_SECONDS = 0.05


class HubRefused(Exception):
    """The hub can't be had, or what it holds can't be used."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why.en)
        self.refusal = refusal


@dataclass(frozen=True)
class RemoteModel:
    """A model at the hub, checked by its headers, and the files that a download takes."""

    model: HubModel
    listing: Listing
    files: tuple[RemoteFile, ...]
    checkpoint: Checkpoint


class Reading:
    """One read in the background. `tell` is called from there with what is being waited for.

    Without patience it waits three seconds and asks once: nobody asked for this model by name.
    """

    def __init__(self, settings: Settings, model: HubModel, tell: Callable[[Text], None], *, patient: bool) -> None:
        self._settings, self._model, self._tell = settings, model, tell
        self._patient = patient
        self._limit = ANSWER_SECONDS if self._patient else DEFAULT_ANSWER_SECONDS
        self._overdue = time.monotonic() + self._limit + 1  # a name server may be waited for longer than any deadline
        self._future = start(self._read)

    def result(self) -> RemoteModel | None:
        """The model, or None while it is being read. Raises HubRefused, CheckpointError."""
        try:
            if self._future.done():
                return self._future.result()
            if time.monotonic() < self._overdue:
                return None
            raise HubError("slow", f"timed out after {self._limit:.0f} s")
        except HubError as error:
            raise HubRefused(self._refusal(error)) from error

    def wait(self) -> RemoteModel:
        """The model, once it is read. Raises HubRefused, CheckpointError."""
        while (found := self.result()) is None:
            time.sleep(POLL_SECONDS)
        return found

    def _read(self) -> RemoteModel:
        settings, model = self._settings, self._model
        cache = HubCache.of(settings.hf_home, model.repo)
        if settings.hf_offline:
            missing = cache.missing(model.revision) or f"revision {model.revision}"
            raise HubRefused(messages.offline(model.repo, missing, cache.folder))
        from entrypoint.hub.client import Hub  # huggingface_hub takes memory and time that a local model needn't pay

        hub = Hub(settings.hf_endpoint, settings.hf_token)
        self._say(0, 0)
        listing = self._listing(hub)
        self._limit += HEADERS_SECONDS
        self._overdue = time.monotonic() + HEADERS_SECONDS + 1
        source = HubSource(hub, listing, cache, Deadline(HEADERS_SECONDS), self._say)
        checkpoint = check_checkpoint(source)
        return RemoteModel(model, listing, source.needed(), checkpoint)

    def _listing(self, hub: Hub) -> Listing:
        deadline, attempts = Deadline(self._limit), ATTEMPTS if self._patient else 1
        for attempt in range(1, attempts + 1):
            try:
                return hub.listing(self._model.repo, self._model.revision, deadline)
            except HubError as error:
                pause = error.retry_after_seconds or PAUSE_SECONDS * attempt
                if not error.passing or attempt == attempts or pause >= deadline.left():
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _say(self, done: int, total: int) -> None:
        self._tell(messages.reading_headers(self._model.repo, self._settings.hf_endpoint, done, total))

    def _refusal(self, error: HubError) -> Refusal:
        settings = self._settings
        return messages.refusal(error, settings.hf_endpoint, self._model, settings.hf_token is not None)


def reason(error: HubRefused | CheckpointError) -> Text:
    """Why a model can't be had, as a sentence."""
    return error.refusal.why if isinstance(error, HubRefused) else Text(f"{error}.", f"{error}。")
