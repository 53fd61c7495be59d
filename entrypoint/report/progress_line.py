"""A start's progress in one line, for the log."""

from __future__ import annotations

from app.contract.status import Status
from entrypoint.units import size


def progress_line(status: Status) -> str | None:
    """What the engine does before it is ready, and how far it is; None in any other phase."""
    if status.note is not None:
        return status.note.en
    if status.phase == "proving":
        if (steps := status.steps) is None:
            return "checking the memory"
        return (
            f"checking the memory: step {min(steps.done + 1, steps.total)} of {steps.total}{_left(steps.eta_seconds)}"
        )
    if status.phase != "loading":
        return None
    progress = status.progress
    if status.load_stage == "reading" and progress is not None:
        done, total = size(progress.done_bytes), size(progress.total_bytes)
        return f"reading the weights: {done} of {total}{_left(progress.eta_seconds)}"
    return "packing the weights and allocating the KV cache" if progress else "the model process is starting"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", about {seconds:.0f} s left"
