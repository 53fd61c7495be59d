"""The GPUs, as the driver reports them through NVML: no CUDA context is made and torch is not loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from app.contract.plan import Device, Holder
from entrypoint.machine import gpu_bandwidth, gpu_errors
from entrypoint.machine.cuda_visible_devices import NamedDevice, visible_devices
from entrypoint.reasons.machine import NoDevice
from entrypoint.reasons.reason import Reason
from entrypoint.timeouts import run_with_timeout

T = TypeVar("T")
NO_ANSWER = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch)
"""A driver or a GPU that can't say (vGPU, unified memory, WSL), as opposed to one that fails."""
NOT_OURS = (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument, pynvml.NVMLError_NoPermission)
"""A MIG slot that is empty or another container's."""
ANSWER_SECONDS = 30.0
"""For all calls of one probe together: with a GPU that hangs the driver may never answer; some need a while to wake."""
UNKNOWN_SIZE = (1 << 64) - 1
"""What some drivers report for a process whose memory they don't know."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that may be used, in the driver's PCI order or in the order that CUDA_VISIBLE_DEVICES names."""

    devices: tuple[Device, ...]
    why_none: Reason | None = None
    """Set if there is none."""
    notes: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class _FailedGpu:
    index: int
    error: pynvml.NVMLError


def probe_gpus(environment: Mapping[str, str], root: Path = Path("/")) -> Gpus:
    """Every GPU and MIG instance that CUDA shows in `environment`, each with what the driver reports."""
    try:
        devices, failed = _in_time(_probe)
    except pynvml.NVMLError as error:
        return Gpus((), gpu_errors.no_gpu(error, environment, root))
    not_used = tuple(gpu_errors.not_used(gpu.index, gpu.error) for gpu in failed)
    visible = visible_devices(devices, _count(devices, failed), environment)
    if visible.devices:
        return Gpus(visible.devices, None, (*not_used, *visible.notes))
    reasons = (*((visible.why_none,) if visible.why_none else ()), *not_used) or (NoDevice(),)
    return Gpus((), reasons[0], reasons[1:])


def why_lost(device: Device) -> Reason | None:
    """Why a device of the plan can't be used any more; None while the driver still shows it."""
    try:
        devices, failed = _in_time(_probe)
    except pynvml.NVMLError as error:
        return gpu_errors.lost(device, gpu_errors.no_gpu(error, {}, Path("/")), error)
    if any(named.device.uuid == device.uuid for named in devices):
        return None
    for gpu in failed:
        if gpu.index == device.index:
            return gpu_errors.lost(device, gpu_errors.not_used(gpu.index, gpu.error), gpu.error)
    return gpu_errors.lost(device, None, None)


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _in_time(calls: Callable[[], T]) -> T:
    """What a function that calls NVML returns. Raises NVMLError_Timeout if it takes too long, else as `calls`."""
    try:
        return run_with_timeout(calls, ANSWER_SECONDS)
    except TimeoutError:
        raise pynvml.NVMLError_Timeout() from None


def _probe() -> tuple[list[NamedDevice], list[_FailedGpu]]:
    """What can be read of each GPU; one that fails doesn't keep the others from use. Raises NVMLError."""
    devices: list[NamedDevice] = []
    failed: list[_FailedGpu] = []
    with _nvml():
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                devices += _gpu(index)
            except pynvml.NVMLError as error:
                failed.append(_FailedGpu(index, error))
    return devices, failed


def _count(devices: Sequence[NamedDevice], failed: Sequence[_FailedGpu]) -> int:
    """How many GPUs the driver counts; the MIG instances of one are one."""
    return len({named.device.index for named in devices} | {gpu.index for gpu in failed})


def _gpu(index: int) -> list[NamedDevice]:
    """The GPU, or its MIG instances if it is divided. Raises NVMLError."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = str(_optional(lambda: pynvml.nvmlDeviceGetUUID(handle)) or index)  # CUDA takes the index, too
    mode = _optional(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if not (mode and mode[0]):
        return [NamedDevice(_device(handle, index, uuid, _capability(handle)))]
    instances = list(_instances(handle, index, uuid))
    if not instances:  # the instances are somebody else's, and nobody can use the whole GPU
        raise pynvml.NVMLError_NoPermission()
    return instances


def _instances(parent: Any, index: int, uuid: str) -> Iterator[NamedDevice]:
    """The MIG instances that this container may use."""
    capability = _capability(parent)
    for slot in range(_optional(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(parent)) or 0):
        with contextlib.suppress(*NOT_OURS):
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, slot)
            yield _instance(handle, index, uuid, capability)


def _instance(handle: Any, index: int, parent: str, capability: tuple[int, ...] | None) -> NamedDevice:
    gpu_instance = _optional(lambda: pynvml.nvmlDeviceGetGpuInstanceId(handle))
    compute_instance = _optional(lambda: pynvml.nvmlDeviceGetComputeInstanceId(handle))
    old_name = f"MIG-{parent}/{gpu_instance}/{compute_instance}"
    uuid = str(_optional(lambda: pynvml.nvmlDeviceGetUUID(handle)) or old_name)
    # The driver tells the memory's speed of the whole card; an instance has a share of it.
    device = replace(_device(handle, index, uuid, capability), parent=parent, memory_bytes_per_second=None)
    return NamedDevice(device, old_name)


def _device(handle: Any, index: int, uuid: str, capability: tuple[int, ...] | None) -> Device:
    memory = _memory(handle)
    cuda = _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2) or _optional(pynvml.nvmlSystemGetCudaDriverVersion)
    name = str(_optional(lambda: pynvml.nvmlDeviceGetName(handle)) or "unknown")
    return Device(
        index=index,
        uuid=uuid,
        name=name,
        total_bytes=memory[0] if memory else None,
        free_bytes=memory[1] if memory else None,
        compute_capability=capability,
        driver=str(_optional(pynvml.nvmlSystemGetDriverVersion) or "unknown"),
        cuda_driver=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
        reserved_bytes=memory[2] if memory else 0,
        unified=memory is None,
        holders=_holders(handle),
        memory_bytes_per_second=_memory_speed(handle) or gpu_bandwidth.by_name(name),
    )


def _capability(handle: Any) -> tuple[int, ...] | None:
    return _optional(lambda: tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)))


def _memory(handle: Any) -> tuple[int, int, int] | None:
    """Total, free and reserved bytes; None if the GPU has no memory of its own. Raises NVMLError.

    `free` is the same in both versions of the call; only the second reports what the driver keeps for itself.
    """
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return int(memory.total), int(memory.free), int(memory.reserved)
    except NO_ANSWER:
        pass
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.total), int(memory.free), 0
    except NO_ANSWER:
        return None


def _memory_speed(handle: Any) -> int | None:
    """Bytes a second by clock and width."""
    clock = _optional(lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM))
    return gpu_bandwidth.by_clock(clock, _optional(lambda: pynvml.nvmlDeviceGetMemoryBusWidth(handle)))


def _holders(handle: Any) -> tuple[Holder, ...]:
    processes = _optional(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return tuple(
        Holder(int(p.pid), None if p.usedGpuMemory in (None, UNKNOWN_SIZE) else int(p.usedGpuMemory)) for p in processes
    )


def _optional(call: Callable[[], T]) -> T | None:
    """A value that the plan can do without, or None."""
    try:
        return call()
    except pynvml.NVMLError:
        return None
