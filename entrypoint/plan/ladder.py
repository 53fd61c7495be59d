"""The rungs that a machine offers, in order of preference, and whether it can run them at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.contract.plan import CPU, Device, Dtype, Precision, gpus_of
from entrypoint.machine.torch_build import why_unusable
from entrypoint.plan.footprint import Load, int4_fits_kernels, runtime_bytes, weights_bytes
from entrypoint.plan.inputs import PlanInputs, shares_host
from entrypoint.reasons.plan import Fp8Expands, GpuUnusable, NoFp8Kernels
from entrypoint.reasons.reason import Reason

FP8_CAPABILITY = (8, 9)
"""Compute capability from which a GPU multiplies FP8."""
NATIVE_BF16 = (8, 0)
"""Compute capability from which a GPU computes bf16 natively."""
DTYPES: dict[Precision, Dtype] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

Devices = tuple[Device | None, ...]
"""In the order of a forward pass; None is the CPU."""


@dataclass(frozen=True)
class Candidate:
    """One precision on one device or several. `unsupported` says why it can't run here."""

    precision: Precision
    devices: Devices
    names: tuple[str, ...]
    """As `Rung.devices`: in another order."""
    dtype: Dtype
    unsupported: Reason | None = None

    @property
    def mixed(self) -> bool:
        """Whether layers lie on GPUs and on the CPU."""
        return None in self.devices and len(self.devices) > 1


@dataclass(frozen=True)
class LadderStep:
    """One precision with the places to try it on, in order of preference; of a group the first that fits is taken."""

    groups: tuple[tuple[Candidate, ...], ...]


def mixed(stage: Sequence[LadderStep]) -> bool:
    """Whether this is the stage with layers on GPUs and on the CPU."""
    return all(candidate.mixed for step in stage for group in step.groups for candidate in group)


def stages(inputs: PlanInputs) -> tuple[tuple[LadderStep, ...], ...]:
    """What is tried: the ladder on GPUs, the lowest rung on GPUs and the CPU together, the ladder on the CPU alone.

    After a death in service only the devices of before.
    """
    if inputs.only:
        _, names = inputs.only
        same = tuple(device for device in inputs.devices if device.uuid in gpus_of(names))
        return _only(stages(replace(inputs, devices=same, only=None)), names)
    single, joined = _gpus(inputs)
    ladders = []
    if single:
        several = tuple(tuple(joined[:count]) for count in range(2, len(joined) + 1))
        ladders.append(_ladder(inputs, ((tuple(single[:1]),), several)))
        ladders += [_with_cpu(inputs, single, joined)] if inputs.cpu else []
    if inputs.cpu and not inputs.settings.require_gpu:
        ladders.append(_ladder(inputs, (((None,),),)))
    return tuple(stage for stage in ladders if stage)


def _gpus(inputs: PlanInputs) -> tuple[list[Device], list[Device]]:
    """GPUs by the room they have for a model, largest first: those for one alone, and those that can be joined.

    By room and not by number, so that more memory on any of them is never worse. Of MIG instances a process can use
    only one, and a GPU with the host's memory adds none to it.
    """
    usable = [device for device in inputs.devices if not why_unusable(device, inputs.torch)]
    devices = usable or list(inputs.devices)[:1]
    by_room = sorted(
        devices, key=lambda device: runtime_bytes(device, Load("bf16", "bfloat16", 1, 1)) - inputs.free_bytes(device)
    )
    joined = [device for device in by_room if not device.parent and not shares_host(device)]
    return by_room, joined if usable else []


def _with_cpu(inputs: PlanInputs, single: Sequence[Device], joined: Sequence[Device]) -> tuple[LadderStep, ...]:
    """The lowest rung, or the one that was set, with as many layers on GPUs as they hold.

    The lowest because the CPU sets the pace here: few layers on it, and small ones, are worth more than precision.
    It comes first in a forward pass: there the embedding costs it nothing, and the head is computed on a GPU. Cards
    that compute bf16 are also tried by themselves: beside the CPU an older one makes all of it fp32.
    """
    alone = [d for d in single if not shares_host(d) and not why_unusable(d, inputs.torch)]
    newer = [device for device in joined if _has_bf16(device)]
    several = dict.fromkeys(tuple(kind[:count]) for kind in (joined, newer) for count in range(2, len(kind) + 1))
    places: tuple[Devices, ...] = (*((None, device) for device in alone), *((None, *devices) for devices in several))
    precision = inputs.stored.precision if inputs.stored else inputs.settings.precision
    if precision is None:
        int4 = int4_fits_kernels(inputs.layout, inputs.shape, False)
        precision = "int4" if int4 else "int8"
    return (_step(inputs, precision, (places,)),) if places else ()


def _ladder(inputs: PlanInputs, places: Sequence[tuple[Devices, ...]]) -> tuple[LadderStep, ...]:
    """The ladder of these places, with the precision that was set put first if it is no rung of its own."""
    if inputs.stored:
        return (_step(inputs, inputs.stored.precision, places),)
    requested = inputs.settings.precision
    native, *quantised = (_step(inputs, precision, places) for precision in (None, "int8", "int4"))
    if requested not in DTYPES:
        return (native, *quantised)
    others = (tuple(one for one in group if one.precision != requested) for group in native.groups)
    steps = _step(inputs, requested, places), LadderStep(tuple(group for group in others if group)), *quantised
    return tuple(step for step in steps if step.groups)


def _step(inputs: PlanInputs, precision: Precision | None, places: Sequence[tuple[Devices, ...]]) -> LadderStep:
    """One precision, or each place's native one."""
    fewer = (tuple(devices for devices in group if len(devices) <= inputs.shape.layers) for group in places)
    groups = (tuple(_candidate(inputs, precision, devices) for devices in group) for group in fewer)
    return LadderStep(tuple(group for group in groups if group))


def _candidate(inputs: PlanInputs, precision: Precision | None, devices: Devices) -> Candidate:
    native = _native(devices)
    rung = precision or native
    gpus = [device.uuid for device in inputs.devices if device in devices]
    reasons = (_unusable(inputs, device) or _format_unsupported(inputs, device) for device in devices)
    return Candidate(
        precision=rung,
        devices=devices,
        names=(*gpus, *([CPU] if None in devices else [])),
        dtype=DTYPES.get(rung, DTYPES[native]),
        unsupported=next((reason for reason in reasons if reason), None),
    )


def _only(all_stages: tuple[tuple[LadderStep, ...], ...], names: tuple[str, ...]) -> tuple[tuple[LadderStep, ...], ...]:
    """The candidates on these devices."""

    def narrow(step: LadderStep) -> LadderStep:
        groups = (tuple(candidate for candidate in group if candidate.names == names) for group in step.groups)
        return LadderStep(tuple(group for group in groups if group))

    narrowed = [tuple(step for step in map(narrow, stage) if step.groups) for stage in all_stages]
    return tuple(stage for stage in narrowed if stage)


def _native(devices: Devices) -> Precision:
    """The 16 bits that all of them compute: bf16, else fp16 on GPUs alone; fp32 where they have none in common."""
    if all(map(_has_bf16, devices)):
        return "bf16"
    return "fp32" if None in devices else "fp16"


def _has_bf16(device: Device | None) -> bool:
    """A CPU that does not compute it natively widens it as it is read (app.engine.kernels.bf16_linear)."""
    if device is None:
        return True
    return (device.compute_capability or NATIVE_BF16) >= NATIVE_BF16


def _unusable(inputs: PlanInputs, device: Device | None) -> Reason | None:
    why = why_unusable(device, inputs.torch)
    return GpuUnusable(why) if why else None


def _format_unsupported(inputs: PlanInputs, device: Device | None) -> Reason | None:
    """Why a stored format can't be computed on a device; None if it can."""
    stored = inputs.stored
    if stored is None or stored.precision != "fp8":
        return None
    if device is not None and (device.compute_capability or (0, 0)) >= FP8_CAPABILITY:
        return NoFp8Kernels()
    return Fp8Expands(weights_bytes(inputs.layout, inputs.shape, Load("bf16", "bfloat16", 1, 1)))
