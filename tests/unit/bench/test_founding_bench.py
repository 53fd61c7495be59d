"""The founding story's bench: its limits, its pace and what it tells, without Docker."""

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.bench import founding_story
from tests.bench.founding_story import Limit, Pace, limits, measure_pace, told
from tests.container.lab import Answer

GIB = 1024**3
STATUS: dict[str, Any] = {
    "precision": "int8",
    "max_model_len": 8192,
    "max_num_seqs": 4,
    "plan": {"chosen": {"speed": {"read_bytes": 6 * GIB, "low_tokens_per_second": 1.0, "high_tokens_per_second": 2.0}}},
    "proof": {
        "load_seconds": 100.0,
        "proof_seconds": 30.0,
        "planned_bytes": 7 * GIB,
        "measured_bytes": 6 * GIB,
    },
}


@dataclass
class Clock:
    """A service whose answers take 2 s and 0.5 s a token after the first, and the clock that shows it."""

    now: float = 0.0
    given: list[int] = field(default_factory=list)
    short: bool = False

    def monotonic(self) -> float:
        return self.now

    def chat(self, text: str, *, max_tokens: int, temperature: float) -> Answer:
        self.given.append(max_tokens)
        self.now += 2 + 0.5 * (max_tokens - 1)
        return Answer(200, json.dumps({"usage": {"completion_tokens": max_tokens - self.short}}))


def test_limits_are_memory_and_precision() -> None:
    assert limits("8g:int8,5g:int4") == [Limit("8g", "int8"), Limit("5g", "int4")]
    for text in ("8g", "8g:", ":int8", "8g:int8,"):
        with pytest.raises(argparse.ArgumentTypeError):
            limits(text)


def test_the_pace_leaves_out_what_is_not_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock()
    monkeypatch.setattr(founding_story, "time", clock)
    monkeypatch.setattr(founding_story, "measure_read_bandwidth", iter([9, 12, 10, None, 11]).__next__)
    assert measure_pace(clock) == Pace(first_token_seconds=2, gap_seconds=0.5, read_bandwidth=10.5)
    assert clock.given == [1, *[1, 17] * 5]


def test_a_shorter_answer_is_no_measurement() -> None:
    service: Any = Clock(short=True)
    with pytest.raises(RuntimeError):
        measure_pace(service)


def test_the_report_has_the_share_of_the_read_bandwidth() -> None:
    text = "\n".join(told(Limit("8g", "int8"), STATUS, 140.0, Pace(1.5, 0.5, 16 * GIB), 7 * GIB))
    assert "ready after 140 s: loading 100, proof 30, the rest 10" in text
    assert "75% of 2.67" in text
    assert "NOT AS EXPECTED" not in text


def test_another_precision_and_an_unknown_bandwidth_are_told() -> None:
    lines = told(Limit("8g", "int4"), STATUS, 140.0, Pace(1.5, 0.5, None), 7 * GIB)
    assert "NOT AS EXPECTED" in lines[0]
    assert not any("%" in line for line in lines)
