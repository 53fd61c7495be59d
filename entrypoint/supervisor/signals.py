"""Signals that wake a selector: handlers only count, the supervisor's loop acts."""

from __future__ import annotations

import os
import selectors
import signal
import socket


class Signals:
    """SIGTERM, SIGINT and SIGHUP, counted; SIGCHLD only wakes the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Registers with the data `signals`."""
        selector.register(self._ours, selectors.EVENT_READ, "signals")

    def drain(self) -> None:
        """Reads the bytes that woke the loop."""
        os.read(self._ours.fileno(), 4096)

    def close(self) -> None:
        """Ends the wake-ups."""
        signal.set_wakeup_fd(-1)
        self._ours.close()
        self._theirs.close()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.count += 1
