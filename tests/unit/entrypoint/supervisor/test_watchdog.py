from __future__ import annotations

import pytest

from entrypoint.supervisor.engine_monitor import LEAST_SECONDS, Watchdog


def expires(watchdog: Watchdog, seconds: float, start: float, step: float = 0.25) -> bool:
    """Ticks as often as the supervisor's loop does."""
    return [watchdog.has_expired(start + n * step) for n in range(int(seconds / step) + 1)][-1]


@pytest.mark.parametrize(("proof_seconds", "limit"), [(0.3, LEAST_SECONDS), (6.0, 60.0), (30.0, 300.0)])
def test_a_slow_machine_is_given_more_time(proof_seconds: float, limit: float) -> None:
    watchdog = Watchdog(proof_seconds)
    assert not expires(watchdog, limit - 1, 1000.0)
    assert expires(watchdog, 2, 1000.0 + limit - 1)


def test_a_word_starts_it_anew() -> None:
    watchdog = Watchdog(1.0)
    assert not expires(watchdog, 59, 0.0)
    watchdog.reset()
    assert not expires(watchdog, 59, 59.0)
    assert expires(watchdog, 2, 118.0)


def test_time_in_which_nobody_listened_does_not_count() -> None:
    """A container that is stopped for an hour, or a machine that sleeps where the clock goes on."""
    watchdog = Watchdog(1.0)
    assert not expires(watchdog, 10, 0.0)
    assert not expires(watchdog, 10, 3600.0)
    assert 20.0 <= watchdog.seconds <= 22.0
