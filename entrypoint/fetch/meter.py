"""Progress of the download: bytes are counted as they arrive and reported on the pipe and in the log."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import threading
import time

from app.contract.codec import dump_line
from app.contract.plan import Text
from app.contract.status import FetchEvent, Fetching
from entrypoint.messages.sentence import text
from entrypoint.reasons.reason import Reason
from entrypoint.units import size

REPORT_SECONDS = 0.5
LOG_SECONDS = 5.0
WINDOW_SECONDS = 10.0
log = logging.getLogger(__name__)


class ProgressMeter:
    """Counts the bytes on disk, which are hashed as they are written, and the bytes that the hub sent."""

    def __init__(self, events: int, name: str, total_bytes: int) -> None:
        self.name, self.total_bytes = name, total_bytes
        self.done_bytes = 0
        self._events = events
        self._received = 0
        self._note: Text | None = None
        self._samples: collections.deque[tuple[float, int]] = collections.deque([(time.monotonic(), 0)])
        self._logged_at = time.monotonic()
        self._logged_bytes = -1

    def start(self) -> None:
        """Reports from now on, in a daemon thread."""
        threading.Thread(target=self._run, name="meter", daemon=True).start()

    def add_received(self, count: int) -> None:
        """Counts bytes that came from the hub and are written."""
        self.done_bytes += count
        self._received += count
        self._note = None

    def add_stored(self, count: int) -> None:
        """Counts bytes that were on disk already; negative if they were deleted."""
        self.done_bytes += count

    def note(self, reason: Reason) -> None:
        """Reports why nothing arrives; it stands until bytes arrive again."""
        self._note = text(reason)
        log.warning("%s: %s", self.name, self._note.en)
        self.report()

    def report(self) -> None:
        """Sends the present numbers."""
        self.send(Fetching(self.done_bytes, self.total_bytes, self._rate(), self._note))

    def send(self, event: FetchEvent) -> None:
        """Writes one event. If the supervisor is gone, the lifeline ends this process."""
        with contextlib.suppress(OSError):
            os.write(self._events, dump_line(event))

    def _rate(self) -> float | None:
        now = time.monotonic()
        self._samples.append((now, self._received))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()
        at, received = self._samples[0]
        return (self._received - received) / (now - at) if now - at >= REPORT_SECONDS else None

    def _run(self) -> None:
        while True:
            time.sleep(REPORT_SECONDS)
            self.report()
            if time.monotonic() - self._logged_at >= LOG_SECONDS and self.done_bytes != self._logged_bytes:
                self._log()

    def _log(self) -> None:
        self._logged_at, self._logged_bytes = time.monotonic(), self.done_bytes
        rate = self._rate() or 0
        left = f", {_duration((self.total_bytes - self.done_bytes) / rate)} left" if rate else ""
        log.info(
            "downloading %s: %s of %s, %s/s%s", self.name, size(self.done_bytes), size(self.total_bytes),
            size(int(rate)), left,
        )  # fmt: skip


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
