"""When the engine dies: what killed it, and what to do about it. Pure functions."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from app.contract.exits import ENGINE_BAD_CHECKPOINT, ENGINE_OUT_OF_MEMORY, ENGINE_SELF_TEST
from app.contract.plan import Refusal
from app.contract.status import Death, DeathCause, EngineDown, Phase
from entrypoint.messages.sentence import text
from entrypoint.reasons import engine
from entrypoint.reasons.reason import Reason

MEMORY_CAUSES: tuple[DeathCause, ...] = ("out_of_memory", "killed_by_kernel_oom")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about a death."""

    at: float
    """Unix time, seconds."""
    phase: Phase
    """The engine's phase: loading, proving or ready."""
    exit_code: int
    """Negative for a signal."""
    account: EngineDown | None
    """What the engine reported before it exited."""
    oom_kills: int
    """Processes that the kernel killed for lack of memory since the engine started."""
    limit_bytes: int | None
    peak_bytes: int | None
    gpu_lost: Reason | None = None
    """What the driver says about a GPU that the engine ran on and that is gone."""
    silent_seconds: float | None = None
    """How long the engine had made no step when it was killed for that."""


def certify(evidence: Evidence) -> Death:
    """The death certificate: cause, reason and remedy."""
    cause = _cause(evidence)
    remedy = _remedy(cause)
    return Death(
        at=evidence.at,
        cause=cause,
        phase=evidence.phase,
        exit_code=evidence.exit_code if evidence.exit_code >= 0 else None,
        signal=-evidence.exit_code if evidence.exit_code < 0 else None,
        why=text(_reason(cause, evidence)),
        remedy=text(remedy) if remedy else None,
        limit_bytes=evidence.limit_bytes,
        peak_bytes=evidence.peak_bytes,
    )


def _cause(evidence: Evidence) -> DeathCause:
    if evidence.gpu_lost is not None:
        return "gpu_lost"
    if evidence.silent_seconds is not None:
        return "hung"
    if evidence.account is not None:
        return evidence.account.cause
    if evidence.exit_code == -signal.SIGKILL and evidence.oom_kills > 0:
        return "killed_by_kernel_oom"
    if evidence.exit_code < 0:
        return "killed_by_signal"
    by_code: dict[int, DeathCause] = {
        ENGINE_OUT_OF_MEMORY: "out_of_memory",
        ENGINE_BAD_CHECKPOINT: "bad_checkpoint",
        ENGINE_SELF_TEST: "self_test",
    }
    return by_code.get(evidence.exit_code, "crashed")


def _reason(cause: DeathCause, evidence: Evidence) -> Reason:
    phase, message = evidence.phase, evidence.account.message if evidence.account else ""
    if cause == "killed_by_kernel_oom":
        return engine.KilledForMemory(phase, evidence.limit_bytes, evidence.peak_bytes)
    if cause == "out_of_memory":
        return engine.EngineOutOfMemory(phase, message)
    if cause == "gpu_lost" and evidence.gpu_lost is not None:
        return evidence.gpu_lost
    if evidence.silent_seconds is not None:
        return engine.EngineHung(phase, evidence.silent_seconds)
    if cause == "no_cuda":
        return engine.CudaUnusable(message)
    if cause == "killed_by_signal":
        return engine.KilledBySignal(phase, _signal_name(-evidence.exit_code))
    if cause in ("bad_checkpoint", "self_test"):
        return engine.CheckpointUnusable(message)
    return engine.EngineFailed(phase, message, evidence.exit_code)


def _remedy(cause: DeathCause) -> Reason | None:
    if cause in MEMORY_CAUSES:
        return engine.GiveMoreMemory()
    if cause == "hung":
        return engine.RestartsByItself()
    if cause in ("bad_checkpoint", "self_test"):
        return engine.CopyCheckpointAgain()
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def final_refusal(death: Death, automatic: bool) -> Refusal:
    """What the page says when no further attempt is made; `automatic` is whether Berth chose the precision."""
    line = "GLM_PRECISION=auto" if death.cause in MEMORY_CAUSES and not automatic else None
    return Refusal(why=death.why, remedy=death.remedy or text(engine.SeeTheLog()), env_line=line)
