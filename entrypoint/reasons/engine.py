"""How the model process ended, what to do about it, and what holds its loading up."""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.status import Phase
from entrypoint.reasons.reason import Reason


@dataclass(frozen=True)
class KilledForMemory(Reason):
    """The kernel killed it because memory ran out."""

    phase: Phase
    """Of the model process when it ended, as in the following classes."""
    limit_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class EngineOutOfMemory(Reason):
    """It could not allocate memory, and said so."""

    phase: Phase
    message: str
    """Its own words; they are English."""


@dataclass(frozen=True)
class EngineHung(Reason):
    """It made no step for too long, and the supervisor killed it."""

    phase: Phase
    seconds: float


@dataclass(frozen=True)
class CudaUnusable(Reason):
    """The driver shows a GPU that torch can't use."""

    message: str


@dataclass(frozen=True)
class KilledBySignal(Reason):
    """Something else ended it."""

    phase: Phase
    signal: str
    """Its name, such as SIGKILL."""


@dataclass(frozen=True)
class CheckpointUnusable(Reason):
    """The checkpoint can't be loaded, or the loaded model fails its self-test."""

    message: str


@dataclass(frozen=True)
class EngineFailed(Reason):
    """Any other failure; the message is empty if it said nothing."""

    phase: Phase
    message: str
    exit_code: int


@dataclass(frozen=True)
class GiveMoreMemory(Reason):
    """Remedy: a larger container or a smaller model."""


@dataclass(frozen=True)
class CopyCheckpointAgain(Reason):
    """Remedy: an intact checkpoint or another one."""


@dataclass(frozen=True)
class RestartsByItself(Reason):
    """Remedy: nothing, unless it happens again."""


@dataclass(frozen=True)
class SeeTheLog(Reason):
    """Remedy if there is no better one."""


@dataclass(frozen=True)
class LoadingStalled(Reason):
    """The model process is alive, but its disk delivers nothing."""

    seconds: int
    done_bytes: int
    total_bytes: int
