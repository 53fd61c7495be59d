"""The GPUs, asked of the driver through NVML: no CUDA context is made and torch is not loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from app.contract.plan import Device, Holder, Text
from entrypoint.machine import cuda_visible_devices, gpu_messages
from entrypoint.machine.cuda_visible_devices import Seen
from entrypoint.timeouts import run_with_timeout

T = TypeVar("T")
UNTOLD = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch)
"""A driver or a card that has no answer (vGPU, unified memory, WSL), as against one that fails."""
NOT_OURS = (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument, pynvml.NVMLError_NoPermission)
"""A MIG slot that is empty or another container's."""
ANSWER_SECONDS = 30.0
"""For all that the driver is asked at once: with a card that hangs it may never answer; some need a while to wake."""
NOT_A_SIZE = (1 << 64) - 1
"""What some drivers say of a process whose memory they don't know."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that may be used, in the driver's PCI order or in the order that CUDA_VISIBLE_DEVICES names."""

    devices: tuple[Device, ...]
    none: Text | None = None
    """Why there is none, as far as that can be told."""
    notes: tuple[Text, ...] = ()


@dataclass(frozen=True)
class _Gone:
    index: int
    error: pynvml.NVMLError


def probe_gpus(environment: Mapping[str, str], root: Path = Path("/")) -> Gpus:
    """Every GPU and MIG instance that CUDA would show in `environment`, each with what the driver tells of it."""
    try:
        seen, gone = _in_time(_look)
    except pynvml.NVMLError as error:
        return Gpus((), gpu_messages.no_gpu(error, environment, root))
    left_out = tuple(gpu_messages.left_out(each.index, each.error) for each in gone)
    shown = cuda_visible_devices.apply(seen, _count(seen, gone), environment)
    if shown.devices:
        return Gpus(shown.devices, None, (*left_out, *shown.notes))
    why = (*((shown.none,) if shown.none else ()), *left_out) or (gpu_messages.NO_DEVICE,)
    return Gpus((), why[0], why[1:])


def why_lost(device: Device) -> Text | None:
    """Why a device that was planned with can't be used any more; None while the driver still shows it."""
    try:
        seen, gone = _in_time(_look)
    except pynvml.NVMLError as error:
        return gpu_messages.lost(device, gpu_messages.no_gpu(error, {}, Path("/")), error)
    if any(entry.device.uuid == device.uuid for entry in seen):
        return None
    for each in gone:
        if each.index == device.index:
            return gpu_messages.lost(device, gpu_messages.left_out(each.index, each.error), each.error)
    return gpu_messages.lost(device, None, None)


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _in_time(ask: Callable[[], T]) -> T:
    """The answer of a function that asks NVML. Raises NVMLError_Timeout where it takes too long, else as `ask`."""
    try:
        return run_with_timeout(ask, ANSWER_SECONDS)
    except TimeoutError:
        raise pynvml.NVMLError_Timeout() from None


def _look() -> tuple[list[Seen], list[_Gone]]:
    """What can be read of each GPU; one that fails is set apart, the others go on. Raises NVMLError."""
    seen: list[Seen] = []
    gone: list[_Gone] = []
    with _nvml():
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                seen += _gpu(index)
            except pynvml.NVMLError as error:
                gone.append(_Gone(index, error))
    return seen, gone


def _count(seen: Sequence[Seen], gone: Sequence[_Gone]) -> int:
    """How many GPUs the driver counts; the MIG instances of one are one."""
    return len({entry.device.index for entry in seen} | {each.index for each in gone})


def _gpu(index: int) -> list[Seen]:
    """The GPU, or its MIG instances where it is divided. Raises NVMLError."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = str(_told(lambda: pynvml.nvmlDeviceGetUUID(handle)) or index)  # CUDA takes the index, too
    mode = _told(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if not (mode and mode[0]):
        return [Seen(_device(handle, index, uuid, _capability(handle)))]
    instances = list(_instances(handle, index, uuid))
    if not instances:  # the instances are somebody else's, and the whole can't be used by anybody
        raise pynvml.NVMLError_NoPermission()
    return instances


def _instances(parent: Any, index: int, uuid: str) -> Iterator[Seen]:
    """The MIG instances that this container may use."""
    capability = _capability(parent)
    for slot in range(_told(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(parent)) or 0):
        with contextlib.suppress(*NOT_OURS):
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, slot)
            yield _instance(handle, index, uuid, capability)


def _instance(handle: Any, index: int, parent: str, capability: tuple[int, ...] | None) -> Seen:
    gpu_instance = _told(lambda: pynvml.nvmlDeviceGetGpuInstanceId(handle))
    compute_instance = _told(lambda: pynvml.nvmlDeviceGetComputeInstanceId(handle))
    old_name = f"MIG-{parent}/{gpu_instance}/{compute_instance}"
    uuid = str(_told(lambda: pynvml.nvmlDeviceGetUUID(handle)) or old_name)
    return Seen(replace(_device(handle, index, uuid, capability), parent=parent), old_name)


def _device(handle: Any, index: int, uuid: str, capability: tuple[int, ...] | None) -> Device:
    memory = _memory(handle)
    cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion_v2) or _told(pynvml.nvmlSystemGetCudaDriverVersion)
    return Device(
        index=index,
        uuid=uuid,
        name=str(_told(lambda: pynvml.nvmlDeviceGetName(handle)) or "unknown"),
        total_bytes=memory[0] if memory else None,
        free_bytes=memory[1] if memory else None,
        compute_capability=capability,
        driver=str(_told(pynvml.nvmlSystemGetDriverVersion) or "unknown"),
        cuda_driver=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
        reserved_bytes=memory[2] if memory else 0,
        unified=memory is None,
        holders=_holders(handle),
    )


def _capability(handle: Any) -> tuple[int, ...] | None:
    return _told(lambda: tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)))


def _memory(handle: Any) -> tuple[int, int, int] | None:
    """Total, free and reserved bytes; None where the card has no memory of its own. Raises NVMLError.

    `free` is the same in both versions of the call; only the second tells what the driver keeps for itself.
    """
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return int(memory.total), int(memory.free), int(memory.reserved)
    except UNTOLD:
        pass
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.total), int(memory.free), 0
    except UNTOLD:
        return None


def _holders(handle: Any) -> tuple[Holder, ...]:
    processes = _told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return tuple(
        Holder(int(p.pid), None if p.usedGpuMemory in (None, NOT_A_SIZE) else int(p.usedGpuMemory)) for p in processes
    )


def _told(ask: Callable[[], T]) -> T | None:
    """An answer that the plan can do without, or None."""
    try:
        return ask()
    except pynvml.NVMLError:
        return None
