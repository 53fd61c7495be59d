"""status.json's one writer: the web worker and the page see the service through it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from app.contract.plan import Plan, Rung, Text
from app.contract.status import Attempt, Fetching, Phase, Progress, Status, StepProgress
from entrypoint.messages.sentence import text
from entrypoint.reasons.engine import LoadingStalled
from entrypoint.state.json_file import KeptFiles

PROGRESS_SECONDS = 0.2
"""Progress is written at most this often."""
STALLED_SECONDS = 10
"""If no data is read for this long, a note says so; it is renewed after as long again."""
OF_A_PHASE: dict[str, Any] = {"progress": None, "load_stage": None, "steps": None, "note": None}
"""What a new phase begins with."""


class StatusWriter:
    """Holds the status and replaces the file whenever it changes. Its phase is the one that the service is in."""

    def __init__(self, path: Path, status: Status) -> None:
        self.path = path
        self.status = status
        self._written_at = 0.0
        self._progress_at = time.monotonic()
        self._read_before = 0
        """Bytes that had been read when the clock of reading started."""
        self._files = KeptFiles()
        self._write()

    @property
    def phase(self) -> Phase:
        """What the service is doing."""
        return self.status.phase

    def update(self, phase: Phase | None = None, **changes: Any) -> None:
        """Changes fields of the status; a new phase starts its own clock and has no progress yet."""
        if phase is not None and phase != self.status.phase:
            changes = {**OF_A_PHASE, **changes, "phase": phase, "since": time.time()}
        self.status = replace(self.status, **changes)
        self._write()

    def show_plan(self, plan: Plan) -> None:
        """Shows a plan that is carried out; one that chose a rung leads to loading it."""
        rung = plan.chosen
        if rung is None:
            self.update(plan=plan, precision=None, max_model_len=None, max_num_seqs=None)
            return
        sizes = {"max_model_len": rung.max_model_len, "max_num_seqs": rung.max_num_seqs}
        stage = "starting_process"
        self.update("loading", plan=plan, refusal=None, precision=rung.precision, load_stage=stage, **sizes)

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
        """Shows how far loading is; the time left follows from the mean rate since the first bytes."""
        self._progress_at = time.monotonic()
        if not done_bytes:  # the process is still starting
            return
        if self.status.progress is None:
            self._read_before = done_bytes
        started, read = self._started_at(), done_bytes - self._read_before
        left = (time.time() - started) * (total_bytes - done_bytes) / read if read else None
        stage = "reading" if done_bytes < total_bytes else "preparing"
        self._show(None, progress=Progress(done_bytes, total_bytes, started, left), load_stage=stage)

    def show_steps(self, steps: StepProgress) -> None:
        """Shows how far the proof is."""
        self._show(None, steps=steps)

    def check_loading(self) -> None:
        """Adds a note if no data has been read for long; the time left is unknown then. Call it often while it loads.

        Only between the first byte and the last: before and after them the engine waits for no disk.
        """
        seconds = time.monotonic() - self._progress_at
        progress = self.status.progress
        if self.status.load_stage == "reading" and progress is not None and seconds >= STALLED_SECONDS:
            whole = int(seconds // STALLED_SECONDS * STALLED_SECONDS)
            note = text(LoadingStalled(whole, progress.done_bytes, progress.total_bytes))
            if note != self.status.note:
                self.update(note=note, progress=replace(progress, eta_seconds=None))

    def show_download(self, event: Fetching) -> None:
        """Shows how far a download is; it may continue an earlier one, so the time left follows from the rate now."""
        rate, rest = event.bytes_per_second, event.total_bytes - event.done_bytes
        left = rest / rate if rate else None
        progress = Progress(event.done_bytes, event.total_bytes, self._started_at(), left, rate)
        self._show(event.note, progress=progress)

    def _started_at(self) -> float:
        return self.status.progress.started_at if self.status.progress else time.time()

    def _show(self, note: Text | None, **changes: Any) -> None:
        """Writes at once what people must not miss, and numbers now and then."""
        before, self.status = self.status, replace(self.status, note=note, **changes)
        progress = self.status.progress
        complete = progress is not None and progress.done_bytes == progress.total_bytes
        begins = self.status.load_stage != before.load_stage or (before.steps is None and self.status.steps is not None)
        changed = complete or begins or note != before.note
        if changed or time.time() - self._written_at >= PROGRESS_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written_at = time.time()
        self._files.write(self.path, self.status)
