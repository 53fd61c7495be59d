"""Reads a model's config and headers at the hub, in the background: signals and pages never wait for the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.contract.plan import Refusal, Text
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, check_checkpoint
from entrypoint.hub.cache import HubCache
from entrypoint.hub.listing import Deadline, HubError, HubModel, Listing, RemoteFile
from entrypoint.hub.refusals import hub_refusal, not_cached
from entrypoint.hub.source import HubSource
from entrypoint.messages.sentence import text
from entrypoint.reasons.download import ContactingHub, ReadingHeaders
from entrypoint.reasons.files import InvalidCheckpoint
from entrypoint.reasons.hub import RevisionMissing, TimedOut
from entrypoint.settings.settings import Settings
from entrypoint.timeouts import start

if TYPE_CHECKING:
    from entrypoint.hub.client import Hub

DEFAULT_ANSWER_SECONDS = 3.0
"""For the first answer about the default model, which the user did not choose."""
ANSWER_SECONDS = 20.0
"""For the first answer about a model that the user chose."""
HEADERS_SECONDS = 60.0
"""For config, index and all headers together, after the first answer."""
ATTEMPTS = 3
"""To get the first answer, while the deadline allows; one for the default model."""
PAUSE_SECONDS = 1.0
POLL_SECONDS = 0.05


class HubRefused(Exception):
    """A model of the hub can't be had or used."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why.en)
        self.refusal = refusal


@dataclass(frozen=True)
class RemoteModel:
    """A model at the hub whose headers were checked, and the files to download."""

    model: HubModel
    listing: Listing
    files: tuple[RemoteFile, ...]
    checkpoint: Checkpoint


class Reading:
    """One read in the background. `note` is called from its thread with what it waits for.

    `patient` is False for the default model, which the user did not choose: one request, three seconds.
    """

    def __init__(self, settings: Settings, model: HubModel, note: Callable[[Text], None], *, patient: bool) -> None:
        self._settings, self._model, self._note = settings, model, note
        self._patient = patient
        self._limit = ANSWER_SECONDS if self._patient else DEFAULT_ANSWER_SECONDS
        self._overdue = time.monotonic() + self._limit + 1  # a name server may take longer than any deadline
        self._future = start(self._read)

    def result(self) -> RemoteModel | None:
        """The model, or None while it is being read. Raises HubRefused, CheckpointError."""
        try:
            if self._future.done():
                return self._future.result()
            if time.monotonic() < self._overdue:
                return None
            raise HubError("slow", TimedOut(self._limit))
        except HubError as error:
            raise HubRefused(self._refusal(error)) from error

    def wait(self) -> RemoteModel:
        """The model, once it is read. Raises HubRefused, CheckpointError."""
        while (model := self.result()) is None:
            time.sleep(POLL_SECONDS)
        return model

    def _read(self) -> RemoteModel:
        settings, model = self._settings, self._model
        cache = HubCache.of(settings.hf_home, model.repo)
        if settings.hf_offline:
            missing = cache.missing(model.revision) or RevisionMissing(model.revision)
            raise HubRefused(not_cached(model.repo, missing, cache.folder))
        from entrypoint.hub.client import (
            Hub,  # here: a local model needs neither the memory nor the time of huggingface_hub
        )

        hub = Hub(settings.hf_endpoint, settings.hf_token)
        self._note(text(ContactingHub(settings.hf_endpoint, model.repo)))
        listing = self._listing(hub)
        self._limit += HEADERS_SECONDS
        self._overdue = time.monotonic() + HEADERS_SECONDS + 1
        source = HubSource(hub, listing, cache, Deadline(HEADERS_SECONDS), self._progress)
        checkpoint = check_checkpoint(source)
        return RemoteModel(model, listing, source.needed(), checkpoint)

    def _listing(self, hub: Hub) -> Listing:
        deadline, attempts = Deadline(self._limit), ATTEMPTS if self._patient else 1
        for attempt in range(1, attempts + 1):
            try:
                return hub.listing(self._model.repo, self._model.revision, deadline)
            except HubError as error:
                pause = error.retry_after_seconds or PAUSE_SECONDS * attempt
                if not error.is_transient or attempt == attempts or pause >= deadline.left():
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _progress(self, done: int, total: int) -> None:
        self._note(text(ReadingHeaders(self._settings.hf_endpoint, self._model.repo, done, total)))

    def _refusal(self, error: HubError) -> Refusal:
        settings = self._settings
        return hub_refusal(error, settings.hf_endpoint, self._model, settings.hf_token is not None)


def reason(error: HubRefused | CheckpointError) -> Text:
    """Why a model can't be had, as a sentence with its full stop."""
    if isinstance(error, HubRefused):
        return error.refusal.why
    bad = text(InvalidCheckpoint(str(error)))
    return replace(bad, en=f"{bad.en}.", zh=f"{bad.zh}。")
