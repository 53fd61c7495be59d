"""How much memory the engine uses, and its peak."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from app.engine.runtime import process
from app.layouts.registry import HEAP_GAP_BYTES

STATUS = Path("/proc/self/status")
SAMPLE_SECONDS = 0.01
BOUND_SECONDS = 0.1


class MemoryMeter(Protocol):
    """Measures the bytes used on one device of the plan."""

    def now_bytes(self) -> int:
        """Bytes used at this moment."""

    def peak_bytes(self) -> int:
        """The most bytes used since the meter started."""

    def stop(self) -> None:
        """Stops measuring; the peak stays."""


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process; pages of mapped files don't count, since they can be dropped."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


class DeviceMeters:
    """One meter a device, by GPU UUID or `cpu`."""

    def __init__(self, by_device: Mapping[str, MemoryMeter]) -> None:
        self._by_device = dict(by_device)

    def now(self) -> dict[str, int]:
        """Bytes used on each device at this moment."""
        return {device: meter.now_bytes() for device, meter in self._by_device.items()}

    def peaks(self) -> dict[str, int]:
        """The most bytes used on each device since its meter started; the devices need not have peaked together."""
        return {device: meter.peak_bytes() for device, meter in self._by_device.items()}

    def stop(self) -> None:
        """Stops measuring."""
        for meter in self._by_device.values():
            meter.stop()


class HostMeter:
    """Samples anonymous memory every 10 ms, since the kernel keeps no high-water mark of it."""

    def __init__(self) -> None:
        self._peak = anonymous_bytes()
        self._stopped = threading.Event()
        threading.Thread(target=self._sample, name="memory-meter", daemon=True).start()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, anonymous_bytes())

    def stop(self) -> None:
        """Stops sampling; the peak stays."""
        self._stopped.set()

    def now_bytes(self) -> int:
        return anonymous_bytes()

    def peak_bytes(self) -> int:
        self._peak = max(self._peak, anonymous_bytes())
        return self._peak


class HeapBound:
    """Keeps the free memory of the heap within the plan.

    Freed activations stay in the heap for the next step (`process.keep_freed_memory`); the gaps between them grow for
    hours.
    """

    def __init__(self, step_bytes: int) -> None:
        """Create it when nothing in the heap is free; `step_bytes` is what a step takes besides."""
        self._free_bytes = step_bytes + HEAP_GAP_BYTES
        self._used_bytes = anonymous_bytes()
        self._checked_at = time.monotonic()

    def trim(self) -> None:
        """Returns free memory to the system if there is more than planned. Call it often, between two steps."""
        now = time.monotonic()
        if now - self._checked_at < BOUND_SECONDS:
            return
        self._checked_at = now
        if anonymous_bytes() > self._used_bytes + self._free_bytes:
            process.return_freed_memory()
            self._used_bytes = anonymous_bytes()
