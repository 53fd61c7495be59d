"""How much memory the engine holds, and held at most."""

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


class Meter(Protocol):
    """Bytes on the device that the plan is about."""

    def now_bytes(self) -> int:
        """What is held at this moment."""

    def peak_bytes(self) -> int:
        """The most that was held since the meter began."""

    def stop(self) -> None:
        """Ends what runs for measuring; the peak stays."""


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process; pages of mapped files can be dropped, so they don't count."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


class Meters:
    """One meter a device, by GPU UUID or `cpu`."""

    def __init__(self, by_device: Mapping[str, Meter]) -> None:
        self._by_device = dict(by_device)

    def now(self) -> dict[str, int]:
        """What is held on each device at this moment."""
        return {device: meter.now_bytes() for device, meter in self._by_device.items()}

    def peaks(self) -> dict[str, int]:
        """The most that was held on each since its meter began; the devices need not have peaked together."""
        return {device: meter.peak_bytes() for device, meter in self._by_device.items()}

    def stop(self) -> None:
        """Ends what runs for measuring."""
        for meter in self._by_device.values():
            meter.stop()


class HostMeter:
    """Samples anonymous memory every 10 ms: the kernel keeps no high-water mark of it."""

    def __init__(self) -> None:
        self._peak = anonymous_bytes()
        self._stopped = threading.Event()
        threading.Thread(target=self._sample, name="memory-meter", daemon=True).start()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, anonymous_bytes())

    def stop(self) -> None:
        """Ends the sampling; the peak stays."""
        self._stopped.set()

    def now_bytes(self) -> int:
        return anonymous_bytes()

    def peak_bytes(self) -> int:
        self._peak = max(self._peak, anonymous_bytes())
        return self._peak


class HeapBound:
    """Keeps what lies free in the heap within the plan.

    Freed activations stay there for the next step (`process.keep_freed_memory`); between them gaps grow for hours.
    """

    def __init__(self, step_bytes: int) -> None:
        """At a moment when the heap holds nothing that is free; `step_bytes` is what a step takes meanwhile."""
        self._free_bytes = step_bytes + HEAP_GAP_BYTES
        self._used_bytes = anonymous_bytes()
        self._asked_at = time.monotonic()

    def keep(self) -> None:
        """Call it often, between two steps."""
        now = time.monotonic()
        if now - self._asked_at < BOUND_SECONDS:
            return
        self._asked_at = now
        if anonymous_bytes() > self._used_bytes + self._free_bytes:
            process.return_freed_memory()
            self._used_bytes = anonymous_bytes()
