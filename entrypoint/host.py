"""The host as seen from inside the container: RAM, control groups, disk, processor."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from app.contract.plan import Host, Text
from entrypoint.paths import existing

KIB = 1024


@dataclass(frozen=True)
class GroupLevel:
    """One level of the memory control group: a folder and the names of its files (v1 or v2)."""

    folder: Path
    limit_file: str
    usage_file: str
    peak_file: str
    events_file: str

    def limit_bytes(self) -> int | None:
        """The limit, or None for `max`; v1 writes a huge number instead, which the caller compares with the RAM."""
        return _number(self.folder / self.limit_file)

    def peak_bytes(self) -> int | None:
        """The most that was ever charged."""
        return _number(self.folder / self.peak_file)

    def oom_kills(self) -> int:
        """How many processes of this group the kernel killed for lack of memory."""
        return _fields(self.folder / self.events_file).get("oom_kill", 0)

    def free_bytes(self, limit: int) -> int:
        """What may still be charged: clean file pages go when memory is wanted, so they count as free."""
        usage = _number(self.folder / self.usage_file) or 0
        stat = _fields(self.folder / "memory.stat")
        total = "total_" if "total_inactive_file" in stat else ""  # v1 counts its children apart
        files = stat.get(f"{total}inactive_file", 0) + stat.get(f"{total}active_file", 0)
        dirty = stat.get("file_dirty", stat.get(f"{total}dirty", 0)) + stat.get(
            "file_writeback", stat.get(f"{total}writeback", 0)
        )
        return max(0, limit - usage + max(0, files - dirty))


def memory_groups(root: Path = Path("/")) -> tuple[GroupLevel, ...]:
    """This process's memory control group and its parents, innermost first; empty where there is none.

    Sources: the kernel's admin-guide/cgroup-v1/memory and cgroup-v2. Inside a container the path in
    /proc/self/cgroup is often the host's and not mounted; then the mount's own top is the container's group.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            files = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "memory.max_usage_in_bytes",
                "memory.oom_control",
            )
        elif not controllers and (root / "sys/fs/cgroup/cgroup.controllers").exists():
            top = root / "sys/fs/cgroup"
            files = ("memory.max", "memory.current", "memory.peak", "memory.events")
        else:
            continue
        folder = top / path.lstrip("/")
        folders = [folder, *folder.parents] if folder.is_dir() else [top]
        return tuple(GroupLevel(f, *files) for f in folders if f.is_relative_to(top) and (f / "memory.stat").exists())
    return ()


def read_host(
    disk: Path,
    held_bytes: int = 0,
    held_in_group: bool = True,
    gpu_note: Text | None = None,
    root: Path = Path("/"),
) -> Host:
    """Measures the host.

    `held_bytes` is what a running Berth holds; it counts as available, below the container's limit only where
    that Berth runs in the same container (`held_in_group`).
    """
    memory = {name: kib * KIB for name, kib in _fields(root / "proc/meminfo").items()}
    ram = memory.get("MemTotal", 0)
    limits = [(group, group.limit_bytes()) for group in memory_groups(root)]
    bounds = [(group, limit) for group, limit in limits if limit is not None and limit < ram]
    in_group = held_bytes if held_in_group else 0
    free = [memory.get("MemAvailable", 0) + held_bytes]
    free += [min(limit, group.free_bytes(limit) + in_group) for group, limit in bounds]
    cpu = _text(root / "proc/cpuinfo")
    return Host(
        available_bytes=min(ram, *free),
        ram_bytes=ram,
        limit_bytes=min((limit for _, limit in bounds), default=None),
        disk_free_bytes=shutil.disk_usage(existing(disk)).free,
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_name=_cpu_field(cpu, "model name") or _cpu_field(cpu, "CPU implementer") or "unknown",
        cpu_bf16=bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_cpu_flags(cpu))),
        cpu_avx512="avx512f" in _cpu_flags(cpu),
        cpu_packs_int4="avx512_bf16" in _cpu_flags(cpu),
        held_bytes=held_bytes,
        gpu_note=gpu_note,
    )


def ram_bytes(root: Path = Path("/")) -> int:
    """All of the machine's RAM."""
    return _fields(root / "proc/meminfo").get("MemTotal", 0) * KIB


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for lack of memory, as far as can be seen from here."""
    groups = memory_groups(root)
    if groups:
        return groups[0].oom_kills()
    return _fields(root / "proc/vmstat").get("oom_kill", 0)


def peak_bytes(root: Path = Path("/")) -> int | None:
    """The peak of this process's innermost memory group."""
    groups = memory_groups(root)
    return groups[0].peak_bytes() if groups else None


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process; 0 when it is gone."""
    return _fields(Path(f"/proc/{pid}/status")).get("RssAnon", 0) * KIB


def tree_anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process and all its descendants."""
    children = _text(Path(f"/proc/{pid}/task/{pid}/children")).split()
    return anonymous_bytes(pid) + sum(tree_anonymous_bytes(int(child)) for child in children)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """Lines such as `name 12` or `Name:  12 kB`, as numbers."""
    fields = {}
    for line in _text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            fields[words[0]] = int(words[1])
    return fields


def _cpu_field(cpuinfo: str, name: str) -> str | None:
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def _cpu_flags(cpuinfo: str) -> list[str]:
    return (_cpu_field(cpuinfo, "flags") or _cpu_field(cpuinfo, "Features") or "").split()
