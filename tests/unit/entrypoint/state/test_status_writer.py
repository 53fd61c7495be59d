"""What status.json says while the engine loads and nothing comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.contract.plan import Text
from app.contract.status import Status, read_status
from entrypoint.state import status_writer
from entrypoint.state.status_writer import StatusWriter

GIB = 1024**3


def test_weights_that_stop_coming_are_said_with_numbers_until_they_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(status_writer.time, "monotonic", lambda: clock[0])
    path = tmp_path / "status.json"
    writer = StatusWriter(path, Status("loading", 1.0, 1.0, "", "m", Text("", ""), ""))
    clock[0] += 60
    writer.check_loading()
    assert read_status(path).note is None, "the engine has not begun to read"

    writer.show_loading(3 * GIB, 9 * GIB)
    for seconds, noted in ((9, None), (10, 10), (19, 10), (25, 20)):
        clock[0] = 160 + seconds
        writer.check_loading()
        note = read_status(path).note
        if noted is None:
            assert note is None
        else:
            values = {"seconds": noted, "done_bytes": 3 * GIB, "total_bytes": 9 * GIB}
            assert note is not None and (note.code, note.values) == ("loading_stalled", values)
    writer.show_loading(3 * GIB + 1, 9 * GIB)
    assert writer.status.note is None
    writer.check_loading()
    assert read_status(path).note is None
