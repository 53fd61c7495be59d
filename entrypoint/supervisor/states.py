"""The supervisor's states: what `serve` is doing, with what it needs for that. The status's phase is what people see.

Starting ─> FetchingModel ─> Starting ─> EngineRunning <─> BackingOff
each of them ─> Refused (the page stays up to explain why) or Ended
"""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.plan import Rung
from entrypoint.supervisor.model_fetch import ModelFetch


@dataclass(frozen=True)
class Starting:
    """The model is on this machine; it is read and planned for."""


@dataclass(frozen=True)
class FetchingModel:
    """The model comes from the hub."""

    fetch: ModelFetch


@dataclass(frozen=True)
class EngineRunning:
    """The engine loads, proves or serves."""


@dataclass(frozen=True)
class BackingOff:
    """The engine is started again, with a new plan, at the earliest at `not_before`."""

    rung: Rung
    """The one that ended, or that could not be started."""
    not_before: float
    """Seconds of the monotonic clock."""


@dataclass(frozen=True)
class Refused:
    """Nothing can be run; only the page is up."""


@dataclass(frozen=True)
class Ended:
    """The service stops with an exit code."""

    exit_code: int


State = Starting | FetchingModel | EngineRunning | BackingOff | Refused | Ended
