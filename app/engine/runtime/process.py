"""What the engine asks of its own process: allocator, signals, threads."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MMAP_THRESHOLD_BYTES = 1 << 20
LARGEST_MMAP_THRESHOLD_BYTES = 32 << 20
"""glibc takes no more."""


def tune_allocator() -> None:
    """Makes freed tensors go back to the system while loading; must run before torch is loaded.

    By default glibc keeps blocks of up to 32 MiB for later. A fixed threshold gives each larger block a mapping of its
    own, which `free` returns at once. Weights lie on huge pages, which are faster to read by a twentieth: torch asks
    for them where a tensor has 2 MiB or more. Does nothing on another C library.
    """
    _mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    _mallopt(M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES)
    _mallopt(M_ARENA_MAX, 2)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> None:
    """Makes activations stay in the heap from now on: each step needs the same again.

    Given back and taken again, their pages cost a prompt of 125 tokens 117 ms where it takes 90 so, measured with
    256 M parameters. What is held is bounded by the largest step's, which the proof has measured.
    """
    _mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES)
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)


def share_cores() -> None:
    """Makes OpenMP's threads sleep soon when they wait for each other; must run before torch is loaded.

    By default they spin for milliseconds at each of the hundreds of meeting points of a step. Where something else
    wants the cores (a container's quota, a busy host) they spin against the very thread they wait for: measured
    with a small model on two contended cores, 39 tokens took 13 s, and 0.4 s so. Some spinning pays where the cores are
    free: 32 requests at once got 150 tokens a second with 4000 turns, 139 with 1000 (172 with 20000, which takes three
    times as long as 1000 where the cores are contended).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")


def return_freed_memory() -> None:
    """Gives the free pages inside glibc's heaps back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def on_terminate(action: Callable[[], None]) -> None:
    """Runs `action` in a thread of its own at each SIGTERM; SIGINT is the supervisor's and ignored.

    Call it before any other thread starts: threads inherit the mask, and a signal that one of them leaves
    unblocked ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGTERM})
            action()

    threading.Thread(target=wait, name="sigterm", daemon=True).start()
