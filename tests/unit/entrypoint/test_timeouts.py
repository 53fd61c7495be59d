"""Work in daemon threads: results, exceptions and timeouts."""

from __future__ import annotations

import threading
import time

import pytest

from entrypoint.timeouts import run_with_timeout, start, start_each


def test_the_result_is_returned() -> None:
    assert run_with_timeout(lambda: 42, 5) == 42


def test_an_exception_is_raised_again() -> None:
    with pytest.raises(ValueError, match="no such card"):
        run_with_timeout(lambda: int("no such card"), 5)


def test_work_that_hangs_times_out_and_its_thread_is_a_daemon() -> None:
    release, threads = threading.Event(), list[threading.Thread]()

    def hang() -> None:
        threads.append(threading.current_thread())
        release.wait(30)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run_with_timeout(hang, 0.05)
    assert time.monotonic() - began < 5
    assert threads[0].daemon
    release.set()


def test_work_runs_while_the_caller_goes_on() -> None:
    release = threading.Event()
    future = start(lambda: release.wait(30))
    assert not future.done()
    release.set()
    assert future.result(5) is True


def test_work_for_several_items_runs_a_few_at_a_time_and_keeps_their_order() -> None:
    both, lock, running, most = threading.Barrier(2), threading.Lock(), [0], [0]

    def square(number: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait(10)
        with lock:
            running[0] -= 1
        return number * number

    futures = start_each(square, range(6), threads=2)
    assert [future.result(10) for future in futures] == [0, 1, 4, 9, 16, 25]
    assert most[0] == 2


def test_an_item_that_fails_does_not_stop_the_others() -> None:
    futures = start_each(int, ["1", "x", "3"], threads=1)
    assert futures[0].result(5) == 1
    assert isinstance(futures[1].exception(5), ValueError)
    assert futures[2].result(5) == 3
