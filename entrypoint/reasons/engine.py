"""How the model process ended, what to do about it, and what holds its loading up."""

from __future__ import annotations

from app.contract.status import Phase
from entrypoint.reasons.reason import Reason


class KilledForMemory(Reason):
    """The kernel killed it because memory ran out."""

    phase: Phase
    """Of the model process when it ended, as in the following classes."""
    limit_bytes: int | None
    peak_bytes: int | None


class EngineOutOfMemory(Reason):
    """It could not allocate memory, and said so."""

    phase: Phase
    message: str
    """Its own words; they are English."""


class EngineHung(Reason):
    """It made no step for too long, and the supervisor killed it."""

    phase: Phase
    seconds: float


class CudaUnusable(Reason):
    """The driver shows a GPU that torch can't use."""

    message: str


class KilledBySignal(Reason):
    """Something else ended it."""

    phase: Phase
    signal: str
    """Its name, such as SIGKILL."""


class CheckpointUnusable(Reason):
    """The checkpoint can't be loaded, or the loaded model fails its self-test."""

    message: str


class EngineFailed(Reason):
    """Any other failure; the message is empty if it said nothing."""

    phase: Phase
    message: str
    exit_code: int


class GiveMoreMemory(Reason):
    """Remedy: a larger container or a smaller model."""


class CopyCheckpointAgain(Reason):
    """Remedy: an intact checkpoint or another one."""


class RestartsByItself(Reason):
    """Remedy: nothing, unless it happens again."""


class SeeTheLog(Reason):
    """Remedy if there is no better one."""


class LoadingStalled(Reason):
    """The model process is alive, but its disk delivers nothing."""

    seconds: int
    done_bytes: int
    total_bytes: int
