"""The engine's events while it reads weights and while it proves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from app.contract.codec import from_json
from app.contract.status import EngineEvent, Loading, ProofStep
from app.engine.runtime import events
from app.engine.runtime.events import EventWriter, LoadProgress, ProofProgress


class Pipe:
    """The supervisor's end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def received(self) -> list[EngineEvent]:
        os.close(self.writer)
        with os.fdopen(self.reader, "rb") as lines:
            return [from_json(EngineEvent, json.loads(line), "event") for line in lines]  # type: ignore[arg-type]


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    yield now


def steps(pipe: Pipe) -> list[tuple[int, int, float, float | None]]:
    received = [event for event in pipe.received() if isinstance(event, ProofStep)]
    told = [event.progress for event in received]
    return [(one.done, one.total, round(one.share, 3), one.eta_seconds) for one in told]


def test_the_first_and_the_last_byte_are_told_at_once(pipe: Pipe, clock: list[float]) -> None:
    progress = LoadProgress(EventWriter(pipe.writer), 100)
    for count in (10, 10, 10, 70):
        progress.add(count)
    progress.finish()
    loading = [event.done_bytes for event in pipe.received() if isinstance(event, Loading)]
    assert loading == [0, 10, 100]


def test_the_rest_of_the_bytes_is_told_a_few_times_a_second(pipe: Pipe, clock: list[float]) -> None:
    progress = LoadProgress(EventWriter(pipe.writer), 1000)
    for _ in range(100):
        clock[0] += 0.03
        progress.add(9)
    progress.finish()
    loading = [event.done_bytes for event in pipe.received() if isinstance(event, Loading)]
    assert loading[:2] == [0, 9] and loading[-1] == 1000
    assert 20 <= len(loading) <= 35


def test_the_time_left_of_a_proof_follows_from_what_the_last_steps_took(pipe: Pipe, clock: list[float]) -> None:
    progress = ProofProgress(EventWriter(pipe.writer))
    progress.begin((1.0, 9.0, 10.0, 60.0, 20.0))
    for seconds in (1.0, 9.0, 20.0, 120.0, 20.0):
        clock[0] += seconds
        progress.step_done()
    assert steps(pipe) == [
        (0, 5, 0.0, None),
        (1, 5, 0.01, None),  # too little to go by
        (2, 5, 0.1, 90.0),
        (3, 5, 0.2, 160.0),  # the pace of the last steps, not of all
        (4, 5, 0.8, 40.0),
        (5, 5, 1.0, 0.0),
    ]


def test_short_steps_are_told_together(pipe: Pipe, clock: list[float]) -> None:
    progress = ProofProgress(EventWriter(pipe.writer))
    progress.begin([1.0] * 64)
    for _ in range(64):
        clock[0] += 0.03125
        progress.step_done()
    told = steps(pipe)
    assert [done for done, *_ in told] == [0, *range(8, 65, 8)]
    assert told[-1] == (64, 64, 1.0, 0.0)
    assert told[4] == (32, 64, 0.5, 1.0)
