"""From a model at the hub to one on this machine: headers, plan, download; or the demo instead of the default."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.contract.plan import Plan, Text
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError
from entrypoint.hub.cache import HubCache
from entrypoint.hub.remote_headers import HubRefused, Reading, RemoteModel, reason
from entrypoint.messages.sentence import sentence
from entrypoint.model_choice import ModelChoice, demo_instead
from entrypoint.report.plan_report import plan_lines
from entrypoint.settings.settings import Settings
from entrypoint.state.status_writer import StatusWriter
from entrypoint.supervisor.fetch_process import FetchRun
from entrypoint.units import size

log = logging.getLogger(__name__)


class ModelFetch:
    """The supervisor's loop calls `step` again and again; nothing here blocks."""

    def __init__(
        self,
        settings: Settings,
        choice: ModelChoice,
        run_dir: Path,
        status: StatusWriter,
        plan: Callable[[ModelChoice, Checkpoint], Plan],
    ) -> None:
        self._settings, self._choice, self._run_dir, self._status, self._plan = settings, choice, run_dir, status, plan
        self._note: Text | None = None
        self._remote: RemoteModel | None = None
        self._fetch: FetchRun | None = None
        assert choice.hub is not None
        status.update("planning")
        log.info("reading the headers of %s from %s for the plan", choice.name, settings.hf_endpoint)
        self._reading = Reading(settings, choice.hub, self._take_note, patient=not choice.is_default)

    def step(self) -> ModelChoice | None:
        """The model once it is on this machine, None until then.

        Raises:
            HubRefused, CheckpointError: a model that the user set can't be downloaded, can't be used or doesn't fit.
        """
        try:
            return self._step()
        except (HubRefused, CheckpointError) as error:
            if not self._choice.is_default:
                raise
            choice = demo_instead(self._choice, reason(error))
            log.warning("%s", sentence(choice.why).en)
            return choice

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Ends the download, if one runs."""
        if self._fetch is not None:
            self._fetch.stop(hurry)

    def _step(self) -> ModelChoice | None:
        if self._remote is None:
            self._remote = self._reading.result()
            if self._remote is None:
                if self._note != self._status.status.note:
                    self._status.update(note=self._note)
                return None
            self._fetch = self._begin(self._remote)
        assert self._fetch is not None
        if not self._fetch.step():
            return None
        cache = HubCache.of(self._settings.hf_home, self._choice.name)
        return replace(self._choice, folder=cache.snapshot(self._remote.listing.commit), hub=None)

    def _begin(self, remote: RemoteModel) -> FetchRun:
        plan = self._plan(self._choice, remote.checkpoint)
        sys.stderr.write("\n".join(plan_lines(plan)) + "\n")
        if plan.refusal is not None:
            if not self._choice.is_default:
                self._status.update(plan=plan)
            raise HubRefused(plan.refusal)
        total = sum(file.size for file in remote.files)
        log.info("downloading %s: %s in %d files", self._choice.name, size(total), len(remote.files))
        self._status.update("downloading", plan=plan)
        return FetchRun(self._settings, remote, self._run_dir, self._status)

    def _take_note(self, note: Text) -> None:
        self._note = note  # called in the reading thread; the loop shows it
