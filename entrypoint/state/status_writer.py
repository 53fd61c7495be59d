"""status.json's one writer: the web worker and the page see the service through it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from app.contract.plan import Plan, Rung, Text
from app.contract.status import Attempt, Fetching, Phase, Progress, Status
from entrypoint.messages.sentence import text
from entrypoint.reasons.engine import LoadingStalled
from entrypoint.state.json_file import KeptFiles

PROGRESS_SECONDS = 0.2
"""Progress is written at most this often."""
STALLED_SECONDS = 10
"""If no data is read for this long, a note says so; it is renewed after as long again."""


class StatusWriter:
    """Holds the status and replaces the file whenever it changes. Its phase is the one that the service is in."""

    def __init__(self, path: Path, status: Status) -> None:
        self.path = path
        self.status = status
        self._written_at = 0.0
        self._progress_at = time.monotonic()
        self._files = KeptFiles()
        self._write()

    @property
    def phase(self) -> Phase:
        """What the service is doing."""
        return self.status.phase

    def update(self, phase: Phase | None = None, **changes: Any) -> None:
        """Changes fields of the status; a new phase starts its own clock and has no progress yet."""
        if phase is not None and phase != self.status.phase:
            changes = {"progress": None, "note": None, **changes, "phase": phase, "since": time.time()}
        self.status = replace(self.status, **changes)
        self._write()

    def show_plan(self, plan: Plan) -> None:
        """Shows a plan that is carried out; one that chose a rung leads to loading it."""
        rung = plan.chosen
        if rung is None:
            self.update(plan=plan, precision=None, max_model_len=None, max_num_seqs=None)
            return
        sizes = {"max_model_len": rung.max_model_len, "max_num_seqs": rung.max_num_seqs}
        self.update("loading", plan=plan, refusal=None, precision=rung.precision, **sizes)

    def begin_attempt(self, rung: Rung) -> None:
        """Adds a start of the engine; the last twenty are kept."""
        attempt = Attempt(rung.precision, rung.device, rung.max_num_seqs, time.time(), None, "running")
        self.update(attempts=(*self.status.attempts, attempt)[-20:])

    def end_attempt(self, outcome: Literal["ready", "died", "stopped"], over: bool = True) -> None:
        """Sets the outcome of the last start; without `over` the engine goes on."""
        *before, last = self.status.attempts
        attempt = replace(last, outcome=outcome, ended_at=time.time() if over else None)
        self.update(attempts=(*before, attempt))

    def show_loading(self, done_bytes: int, total_bytes: int) -> None:
        """Shows how far loading is; the time left follows from the mean rate so far."""
        self._progress_at = time.monotonic()
        started = self._started_at()
        left = (time.time() - started) * (total_bytes - done_bytes) / done_bytes if done_bytes else None
        self._show(Progress(done_bytes, total_bytes, started, left), None)

    def check_loading(self) -> None:
        """Adds a note if no data has been read for long; call it now and then while the engine loads."""
        seconds = time.monotonic() - self._progress_at
        progress = self.status.progress
        if progress is not None and seconds >= STALLED_SECONDS:
            whole = int(seconds // STALLED_SECONDS * STALLED_SECONDS)
            note = text(LoadingStalled(whole, progress.done_bytes, progress.total_bytes))
            if note != self.status.note:
                self.update(note=note)

    def show_download(self, event: Fetching) -> None:
        """Shows how far a download is; it may continue an earlier one, so the time left follows from the rate now."""
        rate, rest = event.bytes_per_second, event.total_bytes - event.done_bytes
        left = rest / rate if rate else None
        self._show(Progress(event.done_bytes, event.total_bytes, self._started_at(), left, rate), event.note)

    def _started_at(self) -> float:
        return self.status.progress.started_at if self.status.progress else time.time()

    def _show(self, progress: Progress, note: Text | None) -> None:
        changed = note != self.status.note or progress.done_bytes == progress.total_bytes
        self.status = replace(self.status, progress=progress, note=note)
        if changed or time.time() - self._written_at >= PROGRESS_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written_at = time.time()
        self._files.write(self.path, self.status)
