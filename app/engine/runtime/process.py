"""Settings of the engine's own process: allocator, signals, threads."""

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
"""The largest value that glibc accepts."""


def tune_allocator() -> None:
    """Makes freed tensors go back to the system while loading; call it before torch is imported.

    By default glibc keeps blocks of up to 32 MiB for later. With a fixed threshold each larger block gets its own
    mapping, which `free` returns at once. Weights are on huge pages, which are a twentieth faster to read: torch asks
    for them for tensors of 2 MiB or more. With another C library than glibc this does nothing.
    """
    _mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    _mallopt(M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES)
    _mallopt(M_ARENA_MAX, 2)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> None:
    """Makes activations stay in the heap from now on, since each step needs the same memory again.

    If their pages are returned and taken again, a prompt of 125 tokens takes 117 ms instead of 90 (measured with 256 M
    parameters). The memory kept is bounded by the largest step, which the proof has measured.
    """
    _mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES)
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)


def share_cores() -> None:
    """Makes OpenMP's threads sleep soon when they wait for each other; call it before torch is imported.

    By default they spin for milliseconds at each of the hundreds of barriers of a step. If something else uses the
    cores (a container's quota, a busy host), they spin against the very thread that they wait for: with the demo model
    on two contended cores 39 tokens took 13 s. Some spinning pays: 256 M parameters at int8 on two cores with AVX-512
    take 29 ms a token with 20000 turns and 33 with 4000; if two other processes want the cores, 68 and 82. Only a model
    as small as the demo then does better with 4000: 7 ms instead of 16.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def return_freed_memory() -> None:
    """Gives the free pages inside glibc's heaps back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def on_terminate(action: Callable[[], None]) -> None:
    """Runs `action` in its own thread at each SIGTERM. SIGINT is ignored: the supervisor handles it.

    Call it before any other thread starts: threads inherit the mask, and a signal that is unblocked in one of them ends
    the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGTERM})
            action()

    threading.Thread(target=wait, name="sigterm", daemon=True).start()
