"""The rungs that a machine offers, in order of preference, and whether it can run them at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.contract.plan import Device, Dtype, Host, Precision, Text, gpus_of
from entrypoint.machine.torch_build import why_unusable
from entrypoint.plan.footprint import Load, int4_fits_kernels, runtime_bytes, weights_bytes
from entrypoint.plan.inputs import Question, shares_host
from entrypoint.units import size

FP8_CAPABILITY = (8, 9)
"""Compute capability from which a GPU multiplies FP8."""


CPU = "cpu"
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
    device_name: str
    """As `Rung.device`."""
    dtype: Dtype
    unsupported: Text | None = None

    @property
    def mixed(self) -> bool:
        """Whether layers lie on GPUs and on the CPU."""
        return None in self.devices and len(self.devices) > 1


@dataclass(frozen=True)
class Step:
    """One precision with the places to try it on, in order of preference; of a group the first that fits is taken."""

    groups: tuple[tuple[Candidate, ...], ...]


def mixed(stage: Sequence[Step]) -> bool:
    """Whether this is the stage with layers on GPUs and on the CPU."""
    return all(candidate.mixed for step in stage for group in step.groups for candidate in group)


def stages(question: Question) -> tuple[tuple[Step, ...], ...]:
    """What is tried: the ladder on GPUs, the lowest rung on GPUs and the CPU together, the ladder on the CPU alone.

    After a death in service only the devices of before.
    """
    if question.only:
        kept = tuple(device for device in question.devices if device.uuid in gpus_of(question.only[1]))
        return _only(stages(replace(question, devices=kept, only=None)), question.only[1])
    single, joined = _gpus(question)
    found = []
    if single:
        several = tuple(tuple(joined[:count]) for count in range(2, len(joined) + 1))
        found.append(_ladder(question, ((tuple(single[:1]),), several)))
        found += [_with_cpu(question, single, joined)] if question.cpu else []
    if question.cpu and not question.settings.require_gpu:
        found.append(_ladder(question, (((None,),),)))
    return tuple(stage for stage in found if stage)


def _gpus(question: Question) -> tuple[list[Device], list[Device]]:
    """GPUs by the room they have for a model, largest first: those for one alone, and those that can be joined.

    By room and not by number, so that more memory on any of them is never worse. Of MIG instances a process can use
    only one, and a GPU with the host's memory adds none to it.
    """
    usable = [device for device in question.devices if not why_unusable(device, question.torch)]
    devices = usable or list(question.devices)[:1]
    by_room = sorted(devices, key=lambda device: runtime_bytes(device, "bf16") - question.free_bytes(device))
    joined = [device for device in by_room if not device.parent and not shares_host(device)]
    return by_room, joined if usable else []


def _with_cpu(question: Question, single: Sequence[Device], joined: Sequence[Device]) -> tuple[Step, ...]:
    """The lowest rung, or the one that was set, with as many layers on GPUs as they hold.

    The lowest because the CPU sets the pace here: few layers on it, and small ones, are worth more than precision.
    It comes first in a forward pass: there the embedding costs it nothing, and the head is computed on a GPU. Cards
    that compute bf16 are also tried by themselves: beside the CPU an older one makes all of it fp32.
    """
    alone = [d for d in single if not shares_host(d) and not why_unusable(d, question.torch)]
    newer = [device for device in joined if _native_bf16(device, question.host)]
    several = dict.fromkeys(tuple(kind[:count]) for kind in (joined, newer) for count in range(2, len(kind) + 1))
    places: tuple[Devices, ...] = (*((None, device) for device in alone), *((None, *devices) for devices in several))
    precision = question.stored.precision if question.stored else question.settings.precision
    if precision is None:
        int4 = int4_fits_kernels(question.layout, question.shape, question.host.cpu_packs_int4)
        precision = "int4" if int4 else "int8"
    return (_step(question, precision, (places,)),) if places else ()


def _ladder(question: Question, places: Sequence[tuple[Devices, ...]]) -> tuple[Step, ...]:
    """The ladder of these places, with the precision that was asked for put first if it is no rung of its own."""
    if question.stored:
        return (_step(question, question.stored.precision, places),)
    asked = question.settings.precision
    native, *quantised = (_step(question, precision, places) for precision in (None, "int8", "int4"))
    if asked not in DTYPES:
        return (native, *quantised)
    others = (tuple(one for one in group if one.precision != asked) for group in native.groups)
    steps = _step(question, asked, places), Step(tuple(group for group in others if group)), *quantised
    return tuple(step for step in steps if step.groups)


def _step(question: Question, precision: Precision | None, places: Sequence[tuple[Devices, ...]]) -> Step:
    """One precision, or each place's native one."""
    fewer = (tuple(devices for devices in group if len(devices) <= question.shape.layers) for group in places)
    groups = (tuple(_candidate(question, precision, devices) for devices in group) for group in fewer)
    return Step(tuple(group for group in groups if group))


def _candidate(question: Question, precision: Precision | None, devices: Devices) -> Candidate:
    native = _native(devices, question.host)
    rung = precision or native
    numbered = [device.uuid for device in question.devices if device in devices]
    reasons = (why_unusable(device, question.torch) or unsupported(question, device) for device in devices)
    return Candidate(
        precision=rung,
        devices=devices,
        device_name="+".join([*numbered, *([CPU] if None in devices else [])]),
        dtype=DTYPES.get(rung, DTYPES[native]),
        unsupported=next((reason for reason in reasons if reason), None),
    )


def _only(all_stages: tuple[tuple[Step, ...], ...], name: str) -> tuple[tuple[Step, ...], ...]:
    """The places of one name."""

    def kept(step: Step) -> Step:
        groups = (tuple(candidate for candidate in group if candidate.device_name == name) for group in step.groups)
        return Step(tuple(group for group in groups if group))

    narrowed = [tuple(step for step in map(kept, stage) if step.groups) for stage in all_stages]
    return tuple(stage for stage in narrowed if stage)


def _native(devices: Devices, host: Host) -> Precision:
    """What all of them compute natively: bf16, else fp16 on GPUs alone, else fp32."""
    if all(_native_bf16(device, host) for device in devices):
        return "bf16"
    return "fp32" if None in devices else "fp16"


def _native_bf16(device: Device | None, host: Host) -> bool:
    if device is None:
        return host.cpu_bf16
    return (device.compute_capability or NATIVE_BF16) >= NATIVE_BF16


def unsupported(question: Question, device: Device | None) -> Text | None:
    """Why a stored format can't be computed on a device; None where it can."""
    stored = question.stored
    if stored is None or stored.precision != "fp8":
        return None
    if device is not None and (device.compute_capability or (0, 0)) >= FP8_CAPABILITY:
        return Text("this engine has no FP8 kernels", "此引擎没有 FP8 内核")
    need = size(weights_bytes(question.layout, question.shape, Load("bf16", "bfloat16", 1, 1)))
    return Text(f"FP8 would expand to bf16: needs {need}", f"FP8 会展开为 bf16：需要 {need}")
