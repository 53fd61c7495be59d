"""How fast this machine's cores read memory: what decoding on the CPU is bound by."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from entrypoint.machine.cgroup import read_text
from entrypoint.machine.host import read_host
from entrypoint.units import MIB

CORE_SECONDS = 0.05
"""Time on its core that each thread reads for."""
LONGEST_SECONDS = 0.5
"""Until the measurement gives up, as where other processes keep all cores busy."""
LEAST_CORE_SECONDS = 0.01
"""Less of any thread says nothing."""
MOST_THREADS = 64
CACHE_SIZES = 2
"""The buffer is so many times the last-level caches, so that little of it is still there at the next pass."""
LEAST_CACHE_SIZES = 1.25
UNKNOWN_CACHE_BYTES = 32 * MIB
LEAST_BYTES = 8 * MIB
"""For each thread."""
MOST_BYTES = 1024 * MIB
FREE_SHARE = 4
"""Of the free memory no more than one part in so many is taken."""
PIECE_BYTES = 4 * MIB
"""Read by one call: a third of a millisecond on a slow core."""
NICENESS = 5
"""Beside other processes a thread gets a quarter of its core."""


@dataclass
class _Reader:
    """What one thread has read."""

    bytes: int = 0
    seconds: float = 0.0
    """On its core."""


def measure_read_bandwidth(root: Path = Path("/")) -> int | None:
    """Bytes a second that all cores together read from memory; None if it can't be measured.

    Takes 0.1 to 0.2 s. Each core runs libc's `memchr` over a part of a buffer: it is vectorised, reads as fast as torch
    (0.98 of `torch.sum` of fp32 on two cores with AVX-512), and ctypes releases the interpreter's lock for it. The
    threads have a low priority and count their own time on a core: they hardly delay what starts meanwhile, and that
    hardly changes the result.
    """
    host = read_host(root, root=root)
    threads = min(host.cpu_count, MOST_THREADS)
    size = buffer_bytes(threads, host.available_bytes, root)
    if size is None:
        return None
    try:
        readers = _read(threads, size)
    except (OSError, RuntimeError, MemoryError):  # no memory or no thread is to be had
        return None
    if min(reader.seconds for reader in readers) < LEAST_CORE_SECONDS:
        return None
    return int(sum(reader.bytes / reader.seconds for reader in readers))


def buffer_bytes(threads: int, free_bytes: int, root: Path = Path("/")) -> int | None:
    """What each thread reads; None if so little memory is free that the caches would hold it."""
    caches = cache_bytes(threads, root)
    most = min(MOST_BYTES, free_bytes // FREE_SHARE)
    size = min(most, max(CACHE_SIZES * caches, LEAST_BYTES * threads))
    return None if size < LEAST_CACHE_SIZES * caches else size // threads // PIECE_BYTES * PIECE_BYTES or None


def cache_bytes(threads: int, root: Path = Path("/")) -> int:
    """The last-level caches that so many threads may use, all together."""
    folders = sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*"))
    sizes = [
        (_kib(read_text(folder / "size")) * 1024, _cpus(read_text(folder / "shared_cpu_list"))) for folder in folders
    ]
    size, sharing = max(sizes, default=(UNKNOWN_CACHE_BYTES, 1))
    caches = -(-(os.cpu_count() or 1) // max(1, sharing))
    return (size or UNKNOWN_CACHE_BYTES) * min(threads, caches)


def _kib(text: str) -> int:
    """`49152K`, as sysfs writes a cache's size."""
    number = text.strip().removesuffix("K")
    return int(number) if number.isdigit() else 0


def _cpus(text: str) -> int:
    """How many CPUs a list such as `0-3,8` names."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += int(last or first) - int(first) + 1
    return count


def _read(threads: int, size: int) -> list[_Reader]:
    """Lets each of so many threads read its part of a buffer, `size` bytes, again and again."""
    readers = [_Reader() for _ in range(threads)]
    deadline = time.monotonic() + LONGEST_SECONDS
    with _buffer(threads * size) as address:
        running = [
            threading.Thread(target=_read_part, args=(reader, address + index * size, size, deadline), daemon=True)
            for index, reader in enumerate(readers)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return readers


@contextlib.contextmanager
def _buffer(size: int) -> Iterator[int]:
    """The address of anonymous memory that is given back at the end."""
    with mmap.mmap(-1, size) as memory:
        view = (ctypes.c_char * size).from_buffer(memory)
        try:
            yield ctypes.addressof(view)
        finally:
            del view


def _read_part(reader: _Reader, address: int, size: int, deadline: float) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # on Linux: of this thread alone
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes, memchr.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p
    pieces = range(address, address + size, PIECE_BYTES)
    for piece in pieces:  # until it is written, all of it is one page of zeros
        if time.monotonic() < deadline:
            ctypes.memset(piece, 1, PIECE_BYTES)
    began = time.thread_time()
    for piece in itertools.cycle(pieces):
        if reader.seconds >= CORE_SECONDS or time.monotonic() >= deadline:
            return
        memchr(piece, 0, PIECE_BYTES)
        reader.bytes += PIECE_BYTES
        reader.seconds = time.thread_time() - began
