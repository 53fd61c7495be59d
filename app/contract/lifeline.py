"""The lifeline: a pipe whose other end an ancestor keeps open. Its end of file means that the ancestor has ended."""

from __future__ import annotations

import os
import threading

from app.contract import exits


def watch(*descriptors: int) -> None:
    """Ends this process at once when one of the pipes reaches its end of file; returns immediately."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        threading.Thread(target=_wait, args=(descriptor,), name=f"lifeline-{descriptor}", daemon=True).start()


def _wait(descriptor: int) -> None:
    while True:
        try:
            if os.read(descriptor, 64):
                continue
        except InterruptedError:
            continue
        except OSError:
            pass
        os._exit(exits.LIFELINE_CUT)
