"""The prompt tokens that come with the answers' next tokens: as many as the wait allows, never none."""

from __future__ import annotations

import pytest

from app.engine.backend.prefill_budget import GAP_SECONDS, GAP_STEPS, MIN_TOKENS, PrefillBudget

MOST = 512


def learned(step: float, token: float, most: int = MOST) -> PrefillBudget:
    """A budget after passes with these seconds a step, and these for each prompt token."""
    budget = PrefillBudget(most)
    for tokens in (100, 200, 64):
        budget.record_pass(step, answers=3, prompt_tokens=0)
        budget.record_pass(step + tokens * token, answers=3, prompt_tokens=tokens)
    return budget


def test_nobody_waits_where_nobody_runs() -> None:
    assert learned(0.05, 0.01).next_tokens(running=False) == MOST


def test_what_is_not_known_yet_is_tried() -> None:
    assert PrefillBudget(MOST).next_tokens(running=True) == MOST


@pytest.mark.parametrize(("step", "token"), [(0.04, 0.001), (0.01, 0.002), (0.19, 0.0001)])
def test_a_pass_takes_as_long_as_answers_may_wait(step: float, token: float) -> None:
    budget = learned(step, token)
    seconds = step + budget.next_tokens(running=True) * token
    limit = max(GAP_SECONDS, GAP_STEPS * step)
    assert (limit - token <= seconds + 1e-9 and seconds <= limit + 1e-9) or budget.next_tokens(running=True) == MOST


def test_where_a_step_is_slow_by_itself_prompts_still_get_on() -> None:
    """A 9B model on a CPU: 0.7 s a step, 11 ms a prompt token."""
    budget = learned(0.7, 0.011)
    assert budget.max_gap_seconds == pytest.approx(2.1)
    assert 120 <= budget.next_tokens(running=True) <= 128


def test_however_slow_it_is_some_tokens_come() -> None:
    assert learned(0.1, 1.0).next_tokens(running=True) == MIN_TOKENS
    assert learned(0.1, 1.0, most=8).next_tokens(running=True) == 8


def test_one_slow_pass_is_not_taken_for_the_rule() -> None:
    """A pass that was held up by something else moves the next one's size, but not to nothing."""
    budget = learned(0.04, 0.001)
    before = budget.next_tokens(running=True)
    budget.record_pass(1.0, answers=3, prompt_tokens=100)
    assert MIN_TOKENS <= budget.next_tokens(running=True) < before
    for _ in range(20):
        budget.record_pass(0.04 + 0.1, answers=3, prompt_tokens=100)
    assert budget.next_tokens(running=True) > 0.9 * before
