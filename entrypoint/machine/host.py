"""The host as seen from inside the container: RAM, control groups, disk, processor."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.contract.plan import Host, Text
from entrypoint.machine.cgroup import KIB, GroupLevel, cpu_count, memory_groups, read_fields, read_text
from entrypoint.paths import existing


def read_host(
    disk: Path,
    held_bytes: int = 0,
    held_in_group: bool = True,
    gpu_note: Text | None = None,
    root: Path = Path("/"),
) -> Host:
    """Measures the host.

    `held_bytes` is what a running Berth uses; it counts as available, below the container's limit only if that Berth
    runs in the same container (`held_in_group`).
    """
    memory = {name: kib * KIB for name, kib in read_fields(root / "proc/meminfo").items()}
    ram = memory.get("MemTotal", 0)
    limits = _limits(ram, root)
    in_group = held_bytes if held_in_group else 0
    free = [memory.get("MemAvailable", 0) + held_bytes]
    free += [min(limit, group.free_bytes(limit) + in_group) for group, limit in limits]
    cpu = read_text(root / "proc/cpuinfo")
    return Host(
        available_bytes=min(ram, *free),
        ram_bytes=ram,
        limit_bytes=min((limit for _, limit in limits), default=None),
        disk_free_bytes=shutil.disk_usage(existing(disk)).free,
        cpu_count=cpu_count(root),
        cpu_name=_cpu_field(cpu, "model name") or _cpu_field(cpu, "CPU implementer") or "unknown",
        cpu_bf16=bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_cpu_flags(cpu))),
        cpu_avx512="avx512f" in _cpu_flags(cpu),
        cpu_packs_int4="avx512_bf16" in _cpu_flags(cpu),
        held_bytes=held_bytes,
        gpu_note=gpu_note,
    )


def ram_bytes(root: Path = Path("/")) -> int:
    """All of the machine's RAM."""
    return read_fields(root / "proc/meminfo").get("MemTotal", 0) * KIB


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The container's memory limit, the least of all levels; None if none is below the RAM."""
    return min((limit for _, limit in _limits(ram_bytes(root), root)), default=None)


def _limits(ram: int, root: Path) -> list[tuple[GroupLevel, int]]:
    """The control groups whose limit is below the RAM, in bytes, with that limit."""
    limits = [(group, group.limit_bytes()) for group in memory_groups(root)]
    return [(group, limit) for group, limit in limits if limit is not None and limit < ram]


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process; 0 when it is gone."""
    return read_fields(Path(f"/proc/{pid}/status")).get("RssAnon", 0) * KIB


def tree_anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process and all its descendants."""
    children = read_text(Path(f"/proc/{pid}/task/{pid}/children")).split()
    return anonymous_bytes(pid) + sum(tree_anonymous_bytes(int(child)) for child in children)


def _cpu_field(cpuinfo: str, name: str) -> str | None:
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def _cpu_flags(cpuinfo: str) -> list[str]:
    return (_cpu_field(cpuinfo, "flags") or _cpu_field(cpuinfo, "Features") or "").split()
