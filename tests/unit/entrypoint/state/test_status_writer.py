"""What status.json says while the engine loads and nothing comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.contract.plan import Text
from app.contract.status import Status, read_status
from entrypoint.state import status_writer
from entrypoint.state.status_writer import StatusBoard

GIB = 1024**3


def test_weights_that_stop_coming_are_said_with_numbers_until_they_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(status_writer.time, "monotonic", lambda: clock[0])
    path = tmp_path / "status.json"
    status = StatusBoard(path, Status("loading", 1.0, 1.0, "", "m", Text("", ""), ""))
    clock[0] += 60
    status.look_at_loading()
    assert read_status(path).note is None, "the engine has not begun to read"

    status.progress(3 * GIB, 9 * GIB)
    for seconds, told in ((9, None), (10, "10 s; 3.00 GiB of 9.00 GiB"), (19, "10 s"), (25, "20 s")):
        clock[0] = 160 + seconds
        status.look_at_loading()
        note = read_status(path).note
        assert (note is None) if told is None else (note is not None and f"No weights have come for {told}" in note.en)
    status.progress(3 * GIB + 1, 9 * GIB)
    assert status.status.note is None
    status.look_at_loading()
    assert read_status(path).note is None
