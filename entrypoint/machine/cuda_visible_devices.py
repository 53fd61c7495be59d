"""CUDA_VISIBLE_DEVICES, as CUDA reads it: NVML does not, so the plan would count cards that CUDA will not show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.contract.plan import Device, Text

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


@dataclass(frozen=True)
class Seen:
    """A device and, for a MIG instance, the name that drivers before 470 gave it: MIG-GPU-<uuid>/<gi>/<ci>."""

    device: Device
    old_name: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What CUDA_VISIBLE_DEVICES may call it, the GPU that an instance is part of included."""
        device = self.device
        return tuple(name for name in (device.uuid, device.parent, self.old_name) if name is not None)


@dataclass(frozen=True)
class Visible:
    """What is left of the devices, and what there is to say of it; `none` where nothing is."""

    devices: tuple[Device, ...]
    none: Text | None = None
    notes: tuple[Text, ...] = ()


def apply(seen: Sequence[Seen], count: int, environment: Mapping[str, str]) -> Visible:
    """The devices that CUDA would show; `count` is how many GPUs the driver counts, readable or not.

    Sources: CUDA C++ Programming Guide, "CUDA Environment Variables"; torch/cuda/__init__.py `_parse_visible_devices`:
    the first entry that is none ends the list, one that comes twice empties it, a UUID may be cut short where it stays
    unambiguous.
    """
    value = environment.get(VARIABLE)
    if value is None or not seen:
        return Visible(tuple(entry.device for entry in seen))
    if value == "" or re.match(r"\s*-\d|NoDevFiles", value):
        return Visible((), _hides_all(value))
    picked, stopped_at = _pick(value.split(","), seen, count)
    if picked is None:
        return Visible((), _twice(value))
    if not picked:
        return Visible((), _matches_none(value, seen))
    notes = [_stopped(value, stopped_at)] if stopped_at is not None else []
    if count > 1 and value[0].isdigit() and environment.get(ORDER) != "PCI_BUS_ID":
        notes.append(_in_pci_order(value))
    return Visible(tuple(entry.device for entry in picked), None, tuple(notes))


def _pick(entries: list[str], seen: Sequence[Seen], count: int) -> tuple[list[Seen] | None, str | None]:
    """The devices in the order they are named (None: one comes twice), and the entry that ended the list."""
    prefix = entries[0][:4] if entries[0].startswith(("GPU-", "MIG-")) else None
    picked: list[Seen] = []
    met: set[int | str] = set()
    for entry in entries:
        key = _named(entry, prefix, seen) if prefix else _counted(entry, count)
        if key is None:
            return picked, entry
        if key in met:
            return None, None
        met.add(key)
        picked += [s for s in seen if (s.device.index == key if isinstance(key, int) else key in s.names)]
    return picked, None


def _counted(entry: str, count: int) -> int | None:
    """The GPU that a number means; like C's strtoul, CUDA reads as far as there are digits."""
    digits = re.match(r"\s*\+?(\d+)", entry)
    return int(digits[1]) if digits and int(digits[1]) < count else None


def _named(entry: str, prefix: str, seen: Sequence[Seen]) -> str | None:
    """The whole name that an entry begins, where it is one name only."""
    if not entry.startswith(prefix):
        return None
    names = {name for s in seen for name in s.names}
    matches = [entry] if entry in names else [name for name in names if name.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _hides_all(value: str) -> Text:
    return Text(
        f"{VARIABLE}={value} hides every GPU: take it out of the environment and of .env to use one.",
        f"{VARIABLE}={value} 隐藏了所有显卡：要使用显卡，请从环境变量和 .env 中去掉它。",
    )


def _twice(value: str) -> Text:
    return Text(
        f"{VARIABLE}={value} names a GPU twice, and CUDA then shows none: name each once.",
        f"{VARIABLE}={value} 重复列出了同一块显卡，CUDA 因此不显示任何显卡：每块只写一次。",
    )


def _matches_none(value: str, seen: Sequence[Seen]) -> Text:
    uuids = ", ".join(entry.device.uuid for entry in seen)
    return Text(f"{VARIABLE}={value} matches none of: {uuids}.", f"{VARIABLE}={value} 与这些都不匹配：{uuids}。")


def _stopped(value: str, entry: str) -> Text:
    return Text(
        f"{VARIABLE}={value}: there is no GPU {entry!r}, and CUDA reads no further than that.",
        f"{VARIABLE}={value}：没有显卡 {entry!r}，CUDA 读到这里为止。",
    )


def _in_pci_order(value: str) -> Text:
    return Text(
        f"{VARIABLE}={value} is counted in PCI order, as nvidia-smi does ({ORDER}=PCI_BUS_ID, which Berth sets).",
        f"{VARIABLE}={value} 按 PCI 顺序计数，与 nvidia-smi 相同（{ORDER}=PCI_BUS_ID，由 Berth 设置）。",
    )
