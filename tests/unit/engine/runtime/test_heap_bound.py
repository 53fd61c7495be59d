"""When the engine returns free memory of its heap to the system."""

from __future__ import annotations

import pytest

from app.engine.runtime import memory, process
from app.layouts.registry import HEAP_GAP_BYTES

STEP, USED = 1000, 10_000


def test_it_returns_what_exceeds_a_step_and_the_planned_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = {"bytes": USED}
    trimmed: list[int] = []

    def trim() -> None:
        trimmed.append(usage["bytes"])
        usage["bytes"] = USED + 300

    monkeypatch.setattr(memory, "anonymous_bytes", lambda: usage["bytes"])
    monkeypatch.setattr(memory, "BOUND_SECONDS", 0.0)
    monkeypatch.setattr(process, "return_freed_memory", trim)
    bound = memory.HeapBound(STEP)
    most = USED + STEP + HEAP_GAP_BYTES
    for now in (USED, most):
        usage["bytes"] = now
        bound.trim()
    assert not trimmed
    usage["bytes"] = most + 1
    bound.trim()
    assert trimmed == [most + 1]
    usage["bytes"] = most + 300
    bound.trim()
    assert len(trimmed) == 1, "what is in use has grown, what is free has not"
