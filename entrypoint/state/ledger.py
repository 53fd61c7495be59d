"""ledger.json: what each rung really took on this machine, and which failed and is not to be tried again."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.contract.codec import from_json, write_atomically
from app.contract.plan import Plan, Rung, joined
from entrypoint.plan.inputs import FailedRung, PlanInputs, ReachedSpeed
from entrypoint.reasons.plan import RanOutBefore, RanOutWithSlots

MOST_ENTRIES = 200
NEWS_SHARE = 0.1
"""A speed that differs from the one kept by less is not written again."""
PACKAGES = ("torch", "transformers", "bitsandbytes")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One rung tried: the checkpoint, the place, and the outcome."""

    at: float
    model_path: str
    stored_bytes: int
    precision: str
    devices: tuple[str, ...]
    device: str = field(init=False)
    """The same in one string, as `Rung.device`."""
    memory_bytes: int
    """Total of the GPUs, and of the container's limit or RAM: other memory is another machine."""
    versions: dict[str, str]
    max_model_len: int
    max_num_seqs: int
    planned_bytes: int
    measured_bytes: int | None
    outcome: Literal["proved", "out_of_memory"]
    tokens_per_second: float | None = None
    """What one request alone reached while the rung served; None if none ran alone for long enough."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", joined(self.devices))


@dataclass(frozen=True)
class Ledger:
    """All entries, oldest first."""

    entries: tuple[Entry, ...] = ()


def read_ledger(path: Path) -> Ledger:
    """The ledger; an empty one if there is none. A damaged one is replaced, with a line in the log."""
    try:
        return from_json(Ledger, _with_devices(json.loads(path.read_text(encoding="utf-8"))), path.name)
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError) as error:
        log.warning("%s can't be read, starting a new one: %s", path, error)
        return Ledger()


def _with_devices(parsed: Any) -> Any:
    """Older ledgers name the devices of an entry in one string only."""
    entries = parsed.get("entries") if isinstance(parsed, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("device"), str):
            entry.setdefault("devices", entry["device"].split("+"))
    return parsed


def new_entry(plan: Plan, rung: Rung, at: float, measured_bytes: int | None, proved: bool) -> Entry:
    """An entry for a rung that was just tried."""
    return Entry(
        at=at,
        model_path=plan.model.path,
        stored_bytes=plan.model.stored_bytes,
        precision=rung.precision,
        devices=rung.devices,
        memory_bytes=_memory(plan, rung.devices),
        versions=versions(),
        max_model_len=rung.max_model_len,
        max_num_seqs=rung.max_num_seqs,
        planned_bytes=rung.need_bytes,
        measured_bytes=measured_bytes,
        outcome="proved" if proved else "out_of_memory",
    )


def add(path: Path, ledger: Ledger, entry: Entry) -> Ledger:
    """Appends and writes; a full disk costs the note, not the service."""
    return _write(path, Ledger((*ledger.entries, entry)[-MOST_ENTRIES:]))


def add_speed(path: Path, ledger: Ledger, tokens_per_second: float) -> Ledger:
    """Notes in the last entry, that of the rung that serves, what one request alone reaches; writes what is news."""
    *before, last = ledger.entries
    known = last.tokens_per_second
    if known is not None and abs(tokens_per_second - known) <= NEWS_SHARE * known:
        return ledger
    return _write(path, Ledger((*before, replace(last, tokens_per_second=round(tokens_per_second, 3)))))


def _write(path: Path, ledger: Ledger) -> Ledger:
    try:
        write_atomically(path, ledger)
    except OSError as error:
        log.warning("%s can't be written: %s", path, error)
    return ledger


def failed_rungs(ledger: Ledger, plan: Plan) -> tuple[FailedRung, ...]:
    """The rungs whose last try with this checkpoint, memory and these versions ran out of memory.

    One that was proved with fewer slots after that is barred from more of them alone.
    """
    failed: dict[tuple[str, tuple[str, ...]], tuple[Entry, Entry | None]] = {}
    for entry in _of_same(ledger, plan):
        rung = entry.precision, entry.devices
        if entry.outcome == "out_of_memory":
            failed[rung] = entry, None
        elif rung in failed and entry.max_num_seqs < failed[rung][0].max_num_seqs:
            failed[rung] = failed[rung][0], entry
        else:
            failed.pop(rung, None)
    return tuple(
        fewer_slots(tried, proved.max_num_seqs)
        if proved
        else never_again(tried.precision, tried.devices, tried.planned_bytes)
        for tried, proved in failed.values()
    )


def reached_speeds(ledger: Ledger, inputs: PlanInputs) -> tuple[ReachedSpeed, ...]:
    """What one request alone reached last with each rung of this checkpoint, memory and these versions."""
    speeds = {}
    for entry in _of_same(ledger, inputs):
        if entry.tokens_per_second is not None:
            speeds[entry.precision, entry.devices] = entry.tokens_per_second
    return tuple(ReachedSpeed(*rung, speed) for rung, speed in speeds.items())


def _of_same(ledger: Ledger, here: Plan | PlanInputs) -> Iterator[Entry]:
    """The entries of this checkpoint, with this memory and these versions."""
    installed = versions()
    for entry in ledger.entries:
        same = entry.model_path == here.model.path and entry.stored_bytes == here.model.stored_bytes
        if same and entry.versions == installed and entry.memory_bytes == _memory(here, entry.devices):
            yield entry


def fewer_slots(tried: Entry | Rung, slots: int) -> FailedRung:
    """Bars a rung from more than so many slots, for it ran out of memory with more."""
    return FailedRung(
        precision=tried.precision,
        devices=tried.devices,
        why=RanOutWithSlots(tried.max_num_seqs),
        max_num_seqs=slots,
        max_model_len=tried.max_model_len,
    )


def never_again(precision: str, devices: tuple[str, ...], planned_bytes: int) -> FailedRung:
    """Bars a rung altogether."""
    return FailedRung(precision=precision, devices=devices, why=RanOutBefore(precision, planned_bytes))


def versions() -> dict[str, str]:
    """Versions of what decides the memory, read from package metadata."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "none"
    return installed


def _memory(here: Plan | PlanInputs, devices: tuple[str, ...]) -> int:
    """All of a rung's devices together."""
    totals = {gpu.uuid: gpu.total_bytes for gpu in here.devices}
    return sum(totals.get(name) or here.host.limit_bytes or here.host.ram_bytes for name in devices)
