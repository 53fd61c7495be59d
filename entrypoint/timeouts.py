"""Work that may hang: each piece runs in a daemon thread, so that it never keeps the process from exiting."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


def run_with_timeout(work: Callable[[], T], seconds: float) -> T:
    """The result of `work`; when the time is up, the work goes on and its result is lost.

    Raises:
        TimeoutError: `work` has not returned within `seconds`.
        Exception: whatever `work` raises.
    """
    return start(work).result(seconds)


def start(work: Callable[[], T]) -> Future[T]:
    """Starts `work` in a thread of its own."""
    future: Future[T] = Future()
    threading.Thread(target=_settle, args=(future, work), daemon=True).start()
    return future


def start_each(work: Callable[[Item], T], items: Iterable[Item], threads: int) -> list[Future[T]]:
    """Starts `work` for every item, at most `threads` at a time; the futures are in the order of the items."""
    pending: queue.SimpleQueue[tuple[Future[T], Item]] = queue.SimpleQueue()
    futures: list[Future[T]] = []
    for item in items:
        futures.append(Future())
        pending.put((futures[-1], item))

    def run() -> None:
        while True:
            try:
                future, item = pending.get_nowait()
            except queue.Empty:
                return
            _settle(future, functools.partial(work, item))

    for _ in range(min(threads, len(futures))):
        threading.Thread(target=run, daemon=True).start()
    return futures


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:  # raised again where the result is wanted
        future.set_exception(error)
    else:
        future.set_result(result)
