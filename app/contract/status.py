"""status.json, which only the supervisor writes, and the events of engine and download on their pipes."""

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
LoadStage = Literal["starting_process", "reading", "preparing"]
"""What the phase `loading` does: the process starts; weights are read, from the first byte to the last; then they are
packed, and the KV cache is allocated."""
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
    """Progress of a download or of reading weights, in bytes."""

    done_bytes: int
    total_bytes: int
    started_at: float
    """Unix time, seconds."""
    eta_seconds: float | None
    bytes_per_second: float | None = None
    """Over the last seconds, while downloading."""


@dataclass(frozen=True)
class StepProgress:
    """How far the proof is. Its steps are known before it begins, but they differ in length."""

    done: int
    total: int
    share: float
    """Of the work, 0 to 1: steps count by what they cost."""
    eta_seconds: float | None
    """By the pace of the last steps; None before enough of them are done."""


@dataclass(frozen=True)
class Death:
    """How the engine ended, as the log, the page and `/api/status` show it."""

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
    """Memory that the longest request used, measured, and what was planned."""

    planned_bytes: int
    measured_bytes: int
    weights_bytes: int
    """Size of all parameters and quantisation states in the loaded model."""
    load_seconds: float
    proof_seconds: float
    measured_by_device: dict[str, int] = field(default_factory=dict)
    """Peaks by GPU UUID or `cpu`, if there are several; the plan's placements have the planned bytes of each."""


@dataclass(frozen=True)
class Status:
    """The body of `/api/status`."""

    phase: Phase
    since: float
    """When the phase began, Unix time, seconds."""
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
    """In the phases `downloading` and `loading`; None until the first byte."""
    load_stage: LoadStage | None = None
    """In the phase `loading`."""
    steps: StepProgress | None = None
    """In the phase `proving`."""
    note: Text | None = None
    """What the current phase waits for, if it is unusual: the hub's headers, a stalled download."""
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
    """Checkpoint bytes read, of all; sent from 0, before the first is read, to the last, a few times a second."""

    done_bytes: int
    total_bytes: int
    type: Literal["loading"] = "loading"


@dataclass(frozen=True)
class Proving:
    """The weights are loaded; the proof and the self-test follow."""

    load_seconds: float
    weights_bytes: int
    type: Literal["proving"] = "proving"


@dataclass(frozen=True)
class ProofStep:
    """How far the proof is; sent from 0 steps to all, at most a few times a second."""

    progress: StepProgress
    type: Literal["proof_step"] = "proof_step"


@dataclass(frozen=True)
class Ready:
    """The socket accepts requests."""

    proof: Proof
    resident_bytes: int
    """Memory of the idle engine: anonymous memory on the CPU, reserved memory and context on a GPU."""
    resident_by_device: dict[str, int] = field(default_factory=dict)
    """The same by GPU UUID or `cpu`."""
    type: Literal["ready"] = "ready"


@dataclass(frozen=True)
class EngineDown:
    """Why the engine is about to exit."""

    cause: DeathCause
    message: str
    type: Literal["down"] = "down"


BEAT_SECONDS = 5.0


@dataclass(frozen=True)
class Beat:
    """A heartbeat of the engine's main thread: every `BEAT_SECONDS` after `Ready`, between steps and while idle."""

    tokens_per_second: float | None = None
    """Of one answer that runs alone, the median over its last tokens; None until there were enough."""
    type: Literal["beat"] = "beat"


EngineEvent = Loading | Proving | ProofStep | Ready | Beat | EngineDown


@dataclass(frozen=True)
class Fetching:
    """Bytes of the model's files on the disk, of all that are needed; sent a few times a second."""

    done_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    """Over the last seconds; None if unknown."""
    note: Text | None
    """What delays the download, with numbers; None while bytes arrive."""
    type: Literal["fetching"] = "fetching"


@dataclass(frozen=True)
class FetchFailed:
    """Why the download gives up."""

    refusal: Refusal
    type: Literal["fetch_failed"] = "fetch_failed"


FetchEvent = Fetching | FetchFailed
