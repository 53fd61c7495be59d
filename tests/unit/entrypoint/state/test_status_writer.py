"""What status.json and the log say while the engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.contract.plan import Text
from app.contract.status import Progress, Status, StepProgress, read_status
from entrypoint.report.progress_line import progress_line
from entrypoint.state import status_writer
from entrypoint.state.status_writer import StatusWriter

GIB = 1024**3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock and, a million later, the wall clock."""
    now = [100.0]
    monkeypatch.setattr(status_writer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(status_writer.time, "time", lambda: 1e6 + now[0])
    return now


@pytest.fixture
def writer(tmp_path: Path, clock: list[float]) -> StatusWriter:
    """Of an engine whose process is starting."""
    status = Status("loading", 1.0, 1.0, "", "m", Text("", ""), "", load_stage="starting_process")
    return StatusWriter(tmp_path / "status.json", status)


def noted(writer: StatusWriter) -> dict[str, object] | None:
    """The numbers of the note in the file after a look at the engine."""
    writer.check_loading()
    note = read_status(writer.path).note
    assert note is None or note.code == "loading_stalled"
    return note.values if note else None


def test_weights_that_stop_coming_are_said_with_numbers_until_they_come_again(
    writer: StatusWriter, clock: list[float]
) -> None:
    clock[0] = 98
    writer.show_loading(1 * GIB, 9 * GIB)
    clock[0] = 100
    writer.show_loading(3 * GIB, 9 * GIB)
    assert writer.status.progress and writer.status.progress.eta_seconds == 6
    for seconds, told in ((9, None), (10, 10), (19, 10), (25, 20)):
        clock[0] = 100 + seconds
        values = {"seconds": told, "done_bytes": 3 * GIB, "total_bytes": 9 * GIB}
        assert noted(writer) == (values if told else None)
    assert read_status(writer.path).progress == Progress(3 * GIB, 9 * GIB, 1e6 + 98, None)
    writer.show_loading(3 * GIB + 1, 9 * GIB)
    assert writer.status.note is None
    assert noted(writer) is None


def test_the_disk_is_blamed_only_between_the_first_byte_and_the_last(writer: StatusWriter, clock: list[float]) -> None:
    for done, stage, blamed in ((0, "starting_process", False), (1, "reading", True), (9 * GIB, "preparing", False)):
        writer.show_loading(done, 9 * GIB)
        clock[0] += 60
        assert (noted(writer) is not None) == blamed
        assert read_status(writer.path).load_stage == stage
        assert ("no data read" in str(progress_line(writer.status)).lower()) == blamed


def test_the_time_left_counts_from_the_first_byte(writer: StatusWriter, clock: list[float]) -> None:
    writer.show_loading(0, 9 * GIB)
    assert writer.status.progress is None
    clock[0] += 30  # imports
    writer.show_loading(1 * GIB, 9 * GIB)
    assert writer.status.progress == Progress(GIB, 9 * GIB, 1e6 + 130, None)
    clock[0] += 2
    writer.show_loading(3 * GIB, 9 * GIB)
    assert writer.status.progress == Progress(3 * GIB, 9 * GIB, 1e6 + 130, 6.0)


def test_a_new_phase_begins_without_the_progress_of_the_last(writer: StatusWriter) -> None:
    writer.show_loading(9 * GIB, 9 * GIB)
    writer.update("proving")
    assert (writer.status.progress, writer.status.load_stage, writer.status.steps) == (None, None, None)
    writer.show_steps(first := StepProgress(0, 12, 0.0, None))
    assert read_status(writer.path).steps == first, "the first step may be long"
    writer.show_steps(StepProgress(2, 12, 0.25, 8.0))
    assert writer.status.steps == StepProgress(2, 12, 0.25, 8.0)
    assert progress_line(writer.status) == "checking the memory: step 3 of 12, about 8 s left"
    writer.update("ready")
    assert (writer.status.steps, progress_line(writer.status)) == (None, None)
