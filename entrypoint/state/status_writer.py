"""status.json's one writer: the web worker and the page see the service through it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from app.contract.plan import Plan, Rung, Text
from app.contract.status import Attempt, Fetching, Phase, Progress, Status
from entrypoint.state.json_file import KeptFiles
from entrypoint.units import size

PROGRESS_SECONDS = 0.2
"""Progress is written so often at most."""
STALLED_SECONDS = 10
"""Weights that don't come for so long are worth a word; the next one comes after as long again."""


class StatusBoard:
    """Holds the status and replaces the file whenever it changes."""

    def __init__(self, path: Path, status: Status) -> None:
        self.path = path
        self.status = status
        self._written_at = 0.0
        self._moved_at = time.monotonic()
        self._files = KeptFiles()
        self._write()

    def update(self, phase: Phase | None = None, **changes: Any) -> None:
        """Changes fields of the status; a new phase starts its own clock and has no progress yet."""
        if phase is not None and phase != self.status.phase:
            changes = {"progress": None, "note": None, **changes, "phase": phase, "since": time.time()}
        self.status = replace(self.status, **changes)
        self._write()

    def planned(self, plan: Plan) -> None:
        """Notes a plan that is carried out; one that chose a rung leads to loading it."""
        rung = plan.chosen
        if rung is None:
            self.update(plan=plan, precision=None, max_model_len=None, max_num_seqs=None)
            return
        sizes = {"max_model_len": rung.max_model_len, "max_num_seqs": rung.max_num_seqs}
        self.update("loading", plan=plan, refusal=None, precision=rung.precision, **sizes)

    def begin_attempt(self, rung: Rung) -> None:
        """Notes a start of the engine; the last twenty are kept."""
        attempt = Attempt(rung.precision, rung.device, rung.max_num_seqs, time.time(), None, "running")
        self.update(attempts=(*self.status.attempts, attempt)[-20:])

    def end_attempt(self, outcome: Literal["ready", "died", "stopped"], over: bool = True) -> None:
        """Notes what has become of the last start; not `over` where it runs on."""
        *before, last = self.status.attempts
        ended = replace(last, outcome=outcome, ended_at=time.time() if over else None)
        self.update(attempts=(*before, ended))

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """Notes bytes done; the time left follows from the mean rate so far."""
        self._moved_at = time.monotonic()
        started = self._started_at()
        left = (time.time() - started) * (total_bytes - done_bytes) / done_bytes if done_bytes else None
        self._show(Progress(done_bytes, total_bytes, started, left), None)

    def look_at_loading(self) -> None:
        """Says so when no weights have come for long; to be called now and then while they are loaded."""
        seconds = time.monotonic() - self._moved_at
        progress = self.status.progress
        if progress is not None and seconds >= STALLED_SECONDS:
            told = int(seconds // STALLED_SECONDS * STALLED_SECONDS)
            note = loading_stalled(told, progress.done_bytes, progress.total_bytes)
            if note != self.status.note:
                self.update(note=note)

    def fetching(self, event: Fetching) -> None:
        """Notes how a download goes; it may go on from an earlier one, so the time left follows from the rate now."""
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


def loading_stalled(seconds: int, done: int, total: int) -> Text:
    """The engine lives, but the disk gives it nothing."""
    return Text(
        f"No weights have come for {seconds} s; {size(done)} of {size(total)} are read. The disk or volume with "
        "the model delivers nothing; loading goes on by itself as soon as it does.",
        f"已有 {seconds} 秒没有读到权重（已读 {size(done)} / {size(total)}）："
        "存放模型的磁盘或网络卷没有返回数据，恢复后会自动继续载入。",
    )
