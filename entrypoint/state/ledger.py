"""ledger.json: what each rung really took on this machine, and which failed and is not to be tried again."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.contract.codec import from_json, write_atomically
from app.contract.plan import Plan, Rung, Text
from entrypoint.plan.inputs import Barred
from entrypoint.units import size

MOST_ENTRIES = 200
PACKAGES = ("torch", "transformers", "bitsandbytes")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One rung tried: the checkpoint, the place, and the outcome."""

    at: float
    model_path: str
    stored_bytes: int
    precision: str
    device: str
    memory_bytes: int
    """Total of the GPUs, and of the container's limit or RAM: other memory is another machine."""
    versions: dict[str, str]
    max_model_len: int
    max_num_seqs: int
    planned_bytes: int
    measured_bytes: int | None
    outcome: Literal["proved", "out_of_memory"]


@dataclass(frozen=True)
class Ledger:
    """All entries, oldest first."""

    entries: tuple[Entry, ...] = ()


def read_ledger(path: Path) -> Ledger:
    """The ledger; an empty one where there is none. A damaged one is begun anew, with a line in the log."""
    try:
        return from_json(Ledger, json.loads(path.read_text(encoding="utf-8")), path.name)
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError) as error:
        log.warning("%s can't be used and is begun anew: %s", path, error)
        return Ledger()


def new_entry(plan: Plan, rung: Rung, at: float, measured_bytes: int | None, proved: bool) -> Entry:
    """An entry for a rung that was just tried."""
    return Entry(
        at=at,
        model_path=plan.model.path,
        stored_bytes=plan.model.stored_bytes,
        precision=rung.precision,
        device=rung.device,
        memory_bytes=_memory(plan, rung.device),
        versions=versions(),
        max_model_len=rung.max_model_len,
        max_num_seqs=rung.max_num_seqs,
        planned_bytes=rung.need_bytes,
        measured_bytes=measured_bytes,
        outcome="proved" if proved else "out_of_memory",
    )


def add(path: Path, ledger: Ledger, entry: Entry) -> Ledger:
    """Appends and writes; a full disk costs the note, not the service."""
    grown = Ledger((*ledger.entries, entry)[-MOST_ENTRIES:])
    try:
        write_atomically(path, grown)
    except OSError as error:
        log.warning("%s can't be written: %s", path, error)
    return grown


def barred(ledger: Ledger, plan: Plan) -> tuple[Barred, ...]:
    """The rungs whose last try with this checkpoint, memory and these versions ran out of memory.

    One that was proved with fewer slots after that is barred from more of them alone.
    """
    failed: dict[tuple[str, str], tuple[Entry, Entry | None]] = {}
    installed = versions()
    for entry in ledger.entries:
        same = entry.model_path == plan.model.path and entry.stored_bytes == plan.model.stored_bytes
        if not same or entry.versions != installed or entry.memory_bytes != _memory(plan, entry.device):
            continue
        rung = entry.precision, entry.device
        if entry.outcome == "out_of_memory":
            failed[rung] = entry, None
        elif rung in failed and entry.max_num_seqs < failed[rung][0].max_num_seqs:
            failed[rung] = failed[rung][0], entry
        else:
            failed.pop(rung, None)
    return tuple(_barred(tried, proved) for tried, proved in failed.values())


def _barred(tried: Entry, proved: Entry | None) -> Barred:
    if proved is None:
        return Barred(tried.precision, tried.device, failed_before(tried.precision, tried.planned_bytes))
    return fewer_slots(tried, proved.max_num_seqs)


def fewer_slots(tried: Entry | Rung, slots: int) -> Barred:
    """Bars a rung from more than so many slots, for it ran out of memory with more."""
    before = tried.max_num_seqs
    why = Text(
        f"with {before} at once memory ran out here; GLM_MAX_NUM_SEQS={before} tries that again",
        f"同时处理 {before} 个请求时曾在此内存不足；设置 GLM_MAX_NUM_SEQS={before} 可强制重试",
    )
    return Barred(tried.precision, tried.device, why, slots, tried.max_model_len)


def failed_before(precision: str, planned_bytes: int) -> Text:
    """Why a remembered rung is not tried again."""
    return Text(
        f"ran out of memory here before (planned {size(planned_bytes)}); GLM_PRECISION={precision} tries it again",
        f"曾在此内存不足（计划 {size(planned_bytes)}）；设置 GLM_PRECISION={precision} 可强制重试",
    )


def versions() -> dict[str, str]:
    """Versions of what decides the memory, read from package metadata."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def _memory(plan: Plan, device: str) -> int:
    """All of a rung's devices together."""
    totals = {gpu.uuid: gpu.total_bytes for gpu in plan.devices}
    return sum(totals.get(name) or plan.host.limit_bytes or plan.host.ram_bytes for name in device.split("+"))
