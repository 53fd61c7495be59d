"""Why nothing can be started, and the line of `.env` that would change it."""

from __future__ import annotations

from collections.abc import Sequence

from app.contract.plan import Host, Refusal, Rung
from entrypoint.messages.sentence import text
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.placement import Budget
from entrypoint.reasons.plan import ContainerLimit, ShortOfRam
from entrypoint.reasons.reason import Reason
from entrypoint.reasons.refusal import (
    AllowCpu,
    CannotLoad,
    FormatUnsupported,
    ModelTooLarge,
    MoreMemory,
    NoGpuSeen,
    NoPrecisionUsable,
    SettingMakesItFit,
    SmallerSettingFits,
    Use16BitCheckpoint,
)

RELAXED = {"GLM_PRECISION": "auto", "GLM_REQUIRE_GPU": "0"}
"""What settings that are no numbers are changed to."""


def no_gpu(host: Host) -> Refusal:
    """A GPU is required and none is seen."""
    return _refusal(NoGpuSeen(host.gpu_note), AllowCpu(), "GLM_REQUIRE_GPU=0")


def format_unsupported(inputs: PlanInputs, reasons: Sequence[Reason]) -> Refusal | None:
    """If the weights are stored as FP8, which no device here computes: what to use instead. None for other formats."""
    stored, name = inputs.stored, inputs.model.name
    if stored is None or stored.precision != "fp8":
        return None
    different = tuple(reason for position, reason in enumerate(reasons) if reason not in reasons[:position])
    why = FormatUnsupported(name, stored.format, stored.bytes, different)
    # As the hub's FP8 checkpoints are named; a folder's neighbour need not be there.
    plain = name.removesuffix("-FP8") if "/" in name else name
    if plain == name:
        return _refusal(why, Use16BitCheckpoint(None), None)
    return _refusal(why, Use16BitCheckpoint(plain), f"GLM_MODEL={plain}")


def setting_helps(why: Reason, name: str, fitting: Rung) -> Refusal:
    """Another value of a setting makes it fit; `fitting` is the rung of a plan that was made to be sure."""
    if name in RELAXED:
        remedy: Reason = SettingMakesItFit(
            setting=name,
            precision=fitting.precision,
            devices=fitting.devices,
            max_model_len=fitting.max_model_len,
            need_bytes=fitting.need_bytes,
        )
        return _refusal(why, remedy, f"{name}={RELAXED[name]}")
    slots = name == "GLM_MAX_NUM_SEQS"
    value = fitting.max_num_seqs if slots else fitting.max_model_len
    remedy = SmallerSettingFits(
        setting=name,
        value=value,
        precision=fitting.precision,
        devices=fitting.devices,
        need_bytes=fitting.need_bytes,
        max_model_len=fitting.max_model_len if slots else None,
    )
    return _refusal(why, remedy, f"{name}={value}")


def smaller_model(inputs: PlanInputs, why: Reason, smallest: Budget | None) -> Refusal:
    """No setting helps."""
    is_demo = inputs.model.name == "demo"
    devices, need = (smallest.candidate.names, smallest.need_bytes) if smallest else ((), 0)
    return _refusal(why, MoreMemory(devices, need, not is_demo), None if is_demo else "GLM_MODEL=demo")


def lack(inputs: PlanInputs, reasons: Sequence[Reason], smallest: Budget | None) -> Reason:
    """What the smallest plan lacks, of the devices or of the host; or why no rung can be used at all."""
    if smallest is None:
        return NoPrecisionUsable(reasons[0])
    if not smallest.short_bytes and (ram := short_of_ram(smallest)):
        return CannotLoad(inputs.model.name, ram)
    return ModelTooLarge(
        model=inputs.model.name,
        precision=smallest.candidate.precision,
        devices=smallest.candidate.names,
        max_model_len=smallest.max_model_len,
        max_num_seqs=smallest.max_num_seqs,
        need_bytes=smallest.need_bytes,
        free_bytes=smallest.free_bytes,
        short_bytes=smallest.short_bytes,
        limit=container_limit(inputs.host) if None in smallest.candidate.devices else None,
    )


def short_of_ram(budget: Budget) -> ShortOfRam | None:
    """If the host, or what the container may use of it, is too small even to load the model onto GPUs."""
    host = budget.inputs.host
    if budget.host_need_bytes <= host.available_bytes:
        return None
    return ShortOfRam(budget.host_need_bytes, host.available_bytes, container_limit(host))


def container_limit(host: Host) -> ContainerLimit | None:
    """None if the container may use all of the machine's memory."""
    return ContainerLimit(host.limit_bytes) if host.limit_bytes else None


def _refusal(why: Reason, remedy: Reason, env_line: str | None) -> Refusal:
    return Refusal(why=text(why), remedy=text(remedy), env_line=env_line)
