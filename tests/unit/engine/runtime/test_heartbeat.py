"""The heartbeat, as the supervisor reads it."""

from __future__ import annotations

import os

import pytest

from app.contract.status import BEAT_SECONDS, Beat, EngineEvent
from app.engine.runtime import events
from app.engine.runtime.events import EventWriter, Heartbeat
from entrypoint.supervisor.child_process import EventReader


def test_it_says_now_and_then_how_fast_an_answer_alone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    reader = EventReader(ours, "engine", EngineEvent)
    speed: list[float | None] = [None]
    heart = Heartbeat(EventWriter(theirs), lambda: speed[0])
    for told in (None, 9.5):
        speed[0] = told
        heart.beat()
        assert list(reader.read()) == []
        now[0] += BEAT_SECONDS
        heart.beat()
        assert list(reader.read()) == [Beat(told)]
    reader.close()
    os.close(theirs)
