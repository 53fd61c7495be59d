"""CUDA_VISIBLE_DEVICES, as CUDA reads it. NVML ignores it, so the plan would count GPUs that CUDA doesn't show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.contract.plan import Device
from entrypoint.reasons.machine import AllGpusHidden, GpuNamedTwice, ListEndsEarly, NoGpuNamed, PciOrder
from entrypoint.reasons.reason import Reason

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


@dataclass(frozen=True)
class NamedDevice:
    """A device and, for a MIG instance, the name that drivers before 470 gave it: MIG-GPU-<uuid>/<gi>/<ci>."""

    device: Device
    old_name: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What CUDA_VISIBLE_DEVICES may call it, including the GPU that an instance is part of."""
        device = self.device
        return tuple(name for name in (device.uuid, device.parent, self.old_name) if name is not None)


@dataclass(frozen=True)
class VisibleDevices:
    """The devices that CUDA shows, and what a reader should know about the variable."""

    devices: tuple[Device, ...]
    why_none: Reason | None = None
    """Set if CUDA shows none of them."""
    notes: tuple[Reason, ...] = ()


def visible_devices(devices: Sequence[NamedDevice], count: int, environment: Mapping[str, str]) -> VisibleDevices:
    """The devices that CUDA shows; `count` is how many GPUs the driver counts, readable or not.

    Sources: CUDA C++ Programming Guide, "CUDA Environment Variables"; torch/cuda/__init__.py `_parse_visible_devices`:
    the first entry that is not a device ends the list, one that comes twice empties it, a UUID may be shortened as long
    as it stays unambiguous.
    """
    value = environment.get(VARIABLE)
    if value is None or not devices:
        return VisibleDevices(tuple(named.device for named in devices))
    if value == "" or re.match(r"\s*-\d|NoDevFiles", value):
        return VisibleDevices((), AllGpusHidden(value))
    selection, last_entry = _select(value.split(","), devices, count)
    if selection is None:
        return VisibleDevices((), GpuNamedTwice(value))
    if not selection:
        return VisibleDevices((), NoGpuNamed(value, tuple(named.device.uuid for named in devices)))
    notes: list[Reason] = [ListEndsEarly(value, last_entry)] if last_entry is not None else []
    if count > 1 and value[0].isdigit() and environment.get(ORDER) != "PCI_BUS_ID":
        notes.append(PciOrder(value))
    return VisibleDevices(tuple(named.device for named in selection), None, tuple(notes))


def _select(
    entries: list[str], devices: Sequence[NamedDevice], count: int
) -> tuple[list[NamedDevice] | None, str | None]:
    """The devices in the order of their entries (None: one comes twice), and the entry that ended the list."""
    prefix = entries[0][:4] if entries[0].startswith(("GPU-", "MIG-")) else None
    selection: list[NamedDevice] = []
    keys: set[int | str] = set()
    for entry in entries:
        key = _full_name(entry, prefix, devices) if prefix else _gpu_number(entry, count)
        if key is None:
            return selection, entry
        if key in keys:
            return None, None
        keys.add(key)
        selection += [d for d in devices if (d.device.index == key if isinstance(key, int) else key in d.names)]
    return selection, None


def _gpu_number(entry: str, count: int) -> int | None:
    """The GPU that a number stands for; like C's strtoul, CUDA reads as far as there are digits."""
    digits = re.match(r"\s*\+?(\d+)", entry)
    return int(digits[1]) if digits and int(digits[1]) < count else None


def _full_name(entry: str, prefix: str, devices: Sequence[NamedDevice]) -> str | None:
    """The name that an entry is the beginning of, if that is one name only."""
    if not entry.startswith(prefix):
        return None
    names = {name for named in devices for name in named.names}
    matches = [entry] if entry in names else [name for name in names if name.startswith(entry)]
    return matches[0] if len(matches) == 1 else None
