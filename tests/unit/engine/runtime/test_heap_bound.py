"""When the engine gives back what lies free in its heap."""

from __future__ import annotations

import pytest

from app.engine.runtime import memory, process
from app.layouts.registry import HEAP_GAP_BYTES

STEP, USED = 1000, 10_000


def test_it_gives_back_what_is_more_than_a_step_and_the_planned_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"bytes": USED}
    given_back: list[int] = []

    def trim() -> None:
        given_back.append(held["bytes"])
        held["bytes"] = USED + 300

    monkeypatch.setattr(memory, "anonymous_bytes", lambda: held["bytes"])
    monkeypatch.setattr(memory, "BOUND_SECONDS", 0.0)
    monkeypatch.setattr(process, "return_freed_memory", trim)
    bound = memory.HeapBound(STEP)
    most = USED + STEP + HEAP_GAP_BYTES
    for now in (USED, most):
        held["bytes"] = now
        bound.trim()
    assert not given_back
    held["bytes"] = most + 1
    bound.trim()
    assert given_back == [most + 1]
    held["bytes"] = most + 300
    bound.trim()
    assert len(given_back) == 1, "what is in use has grown, what is free has not"
