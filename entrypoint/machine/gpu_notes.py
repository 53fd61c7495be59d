"""What a reader of the plan should know about the GPUs in use."""

from __future__ import annotations

from collections.abc import Sequence

from app.contract.plan import Device
from entrypoint.reasons.machine import GpuMemoryInUse, NoBf16, UnifiedMemory
from entrypoint.reasons.reason import Reason
from entrypoint.units import GIB

BF16_CAPABILITY = (8, 0)
WORTH_A_NOTE = 8
"""Memory that other processes use is noted from an eighth of the GPU on."""


def gpu_notes(devices: Sequence[Device], available_bytes: int) -> tuple[Reason, ...]:
    """The notes on all devices; `available_bytes` is the host's memory."""
    notes: list[Reason] = []
    for device in devices:
        capability = device.compute_capability
        if device.unified:
            notes.append(UnifiedMemory(device.index, available_bytes))
        if capability is not None and capability < BF16_CAPABILITY:
            notes.append(NoBf16(device.index, ".".join(map(str, capability))))
        if in_use := memory_in_use(device):
            notes.append(in_use)
    return tuple(notes)


def memory_in_use(device: Device) -> GpuMemoryInUse | None:
    """How much of a GPU other processes use, if it is worth a note: more than 1 GiB and an eighth."""
    if device.total_bytes is None or device.free_bytes is None:
        return None
    used = device.total_bytes - device.reserved_bytes - device.free_bytes
    if used <= GIB or used * WORTH_A_NOTE <= device.total_bytes:
        return None
    sizes = [holder.bytes for holder in device.holders if holder.bytes is not None]
    return GpuMemoryInUse(
        index=device.index,
        used_bytes=used,
        total_bytes=device.total_bytes,
        processes=len(device.holders),
        process_bytes=sum(sizes) if sizes else None,
    )
