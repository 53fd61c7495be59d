from __future__ import annotations

import pytest

from app.engine.serving.solo_pace import FEWEST_STEPS, LAST_STEPS, SoloPace


def steps(pace: SoloPace, answer: object, count: int, seconds: float, now: float = 0.0) -> float:
    """So many tokens of an answer, evenly; the time of the last one."""
    for _ in range(count):
        now += seconds
        pace.note_step(answer, now)
    return now


def test_the_median_of_enough_steps() -> None:
    pace = SoloPace()
    now = steps(pace, "a", FEWEST_STEPS, 0.1)
    assert pace.tokens_per_second() is None, "the first token came after the prompt"
    pace.note_step("a", now + 3.0)
    assert pace.tokens_per_second() == pytest.approx(10.0)


def test_neither_other_answers_nor_the_time_between_two_count() -> None:
    pace = SoloPace()
    now = 0.0
    for answer in range(2 * FEWEST_STEPS):
        pace.note_step(answer, now + 100.0)
        now = steps(pace, answer, 1, 0.5, now + 100.0)
        pace.note_step(None, now + 7.0)
        now = steps(pace, answer, 1, 0.01, now + 7.0)
    assert pace.tokens_per_second() == pytest.approx(2.0)


def test_old_steps_are_forgotten() -> None:
    pace = SoloPace()
    now = steps(pace, "a", LAST_STEPS, 0.1)
    steps(pace, "a", LAST_STEPS, 0.2, now)
    assert pace.tokens_per_second() == pytest.approx(5.0)
