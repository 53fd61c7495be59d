"""status.json, written by the supervisor alone, and what the engine tells the supervisor on the progress pipe."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app.contract.codec import from_json
from app.contract.plan import Plan, Refusal, Text

Phase = Literal[
    "starting", "planning", "downloading", "loading", "proving", "ready", "recovering", "failed", "stopping"
]
DeathCause = Literal[
    "out_of_memory",
    "killed_by_kernel_oom",
    "killed_by_signal",
    "bad_checkpoint",
    "self_test",
    "gpu_lost",
    "no_cuda",
    "hung",
    "crashed",
]


@dataclass(frozen=True)
class Progress:
    """How far the present phase is, in bytes."""

    done_bytes: int
    total_bytes: int
    started_at: float
    """Unix time, seconds."""
    eta_seconds: float | None
    bytes_per_second: float | None = None
    """Of the last seconds, while downloading."""


@dataclass(frozen=True)
class Death:
    """How the engine ended: the certificate that the log, the page and `/api/status` show."""

    at: float
    cause: DeathCause
    phase: Phase
    exit_code: int | None
    signal: int | None
    why: Text
    remedy: Text | None
    limit_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Attempt:
    """One start of the engine."""

    precision: str
    device: str
    max_num_seqs: int
    started_at: float
    ended_at: float | None
    outcome: Literal["running", "ready", "died", "stopped"]


@dataclass(frozen=True)
class Proof:
    """What the longest request took, measured, beside what was planned."""

    planned_bytes: int
    measured_bytes: int
    weights_bytes: int
    """Bytes of every parameter and quantisation state in the loaded model."""
    load_seconds: float
    proof_seconds: float
    measured_by_device: dict[str, int] = field(default_factory=dict)
    """Peaks by GPU UUID or `cpu`, where there are several; the plan's placements say what was planned on each."""


@dataclass(frozen=True)
class Status:
    """The whole of `/api/status`."""

    phase: Phase
    since: float
    """Unix time at which the phase began, seconds."""
    started_at: float
    version: str
    model_name: str
    model_why: Text
    """Why this model: set, or the default."""
    address: str
    plan: Plan | None = None
    precision: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    progress: Progress | None = None
    note: Text | None = None
    """What the present phase waits for, where that is worth saying: the hub's headers, a download that stalls."""
    proof: Proof | None = None
    refusal: Refusal | None = None
    attempts: tuple[Attempt, ...] = ()
    last_death: Death | None = None
    deaths: int = 0


def read_status(path: Path) -> Status:
    """Reads status.json. Raises OSError or ContractError."""
    return from_json(Status, json.loads(path.read_text(encoding="utf-8")), path.name)


@dataclass(frozen=True)
class Loading:
    """Checkpoint bytes that are in place, of all that will be read; sent from 0 to done, a few times a second."""

    done_bytes: int
    total_bytes: int
    type: Literal["loading"] = "loading"


@dataclass(frozen=True)
class Proving:
    """The weights are in place; the proof and the self-test run."""

    load_seconds: float
    weights_bytes: int
    type: Literal["proving"] = "proving"


@dataclass(frozen=True)
class Ready:
    """The socket accepts requests."""

    proof: Proof
    resident_bytes: int
    """What the engine holds while idle: anonymous memory on the CPU, reserved memory and context on a GPU."""
    resident_by_device: dict[str, int] = field(default_factory=dict)
    """The same by GPU UUID or `cpu`."""
    type: Literal["ready"] = "ready"


@dataclass(frozen=True)
class EngineDown:
    """The engine's own account of why it is about to exit."""

    cause: DeathCause
    message: str
    type: Literal["down"] = "down"


BEAT_SECONDS = 5.0


@dataclass(frozen=True)
class Beat:
    """The engine's own thread goes on: sent every `BEAT_SECONDS` after `Ready`, between two steps and while idle."""

    type: Literal["beat"] = "beat"


EngineEvent = Loading | Proving | Ready | Beat | EngineDown


@dataclass(frozen=True)
class Fetching:
    """Bytes of the model's files that are on this disk, of all that are needed; sent a few times a second."""

    done_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    """Over the last seconds; None while that can't be told."""
    note: Text | None
    """What holds the download up, with numbers; None while bytes come."""
    type: Literal["fetching"] = "fetching"


@dataclass(frozen=True)
class FetchFailed:
    """The download's own account of why it gives up."""

    refusal: Refusal
    type: Literal["fetch_failed"] = "fetch_failed"


FetchEvent = Fetching | FetchFailed
