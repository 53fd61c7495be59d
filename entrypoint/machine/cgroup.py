"""Control groups: memory limit, memory usage, kills and CPU quota at every level (v1 and v2)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
V1_MEMORY_FILES = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.oom_control",
)
V2_MEMORY_FILES = ("memory.max", "memory.current", "memory.peak", "memory.events")


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
        return read_number(self.folder / self.limit_file)

    def peak_bytes(self) -> int | None:
        """The most that was ever charged."""
        return read_number(self.folder / self.peak_file)

    def oom_kills(self) -> int:
        """How many processes of this group the kernel killed for lack of memory."""
        return read_fields(self.folder / self.events_file).get("oom_kill", 0)

    def free_bytes(self, limit: int) -> int:
        """What may still be charged: clean file pages go when memory is wanted, so they count as free."""
        usage = read_number(self.folder / self.usage_file) or 0
        stat = read_fields(self.folder / "memory.stat")
        total = "total_" if "total_inactive_file" in stat else ""  # v1 counts its children apart
        files = stat.get(f"{total}inactive_file", 0) + stat.get(f"{total}active_file", 0)
        dirty = stat.get("file_dirty", stat.get(f"{total}dirty", 0)) + stat.get(
            "file_writeback", stat.get(f"{total}writeback", 0)
        )
        return max(0, limit - usage + max(0, files - dirty))


def memory_groups(root: Path = Path("/")) -> tuple[GroupLevel, ...]:
    """This process's memory control group and its parents, innermost first; empty if there is none.

    Source: the kernel's admin-guide/cgroup-v1/memory and cgroup-v2.
    """
    version, folders = _groups("memory", root)
    files = V1_MEMORY_FILES if version == 1 else V2_MEMORY_FILES
    return tuple(GroupLevel(folder, *files) for folder in folders if (folder / "memory.stat").exists())


def cpu_count(root: Path = Path("/")) -> int:
    """Cores that this process may use: those of its affinity, within the CPU quota of every level; at least 1.

    Sources: the kernel's scheduler/sched-bwc (v1) and admin-guide/cgroup-v2, "CPU Interface Files".
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    version, folders = _groups("cpu", root)
    quota_of = _v1_quota if version == 1 else _v2_quota
    return max(1, min([affinity, *(quota for folder in folders if (quota := quota_of(folder)) is not None)]))


def _v1_quota(folder: Path) -> int | None:
    """Whole cores, None without a quota: the kernel writes -1 then."""
    quota, period = read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us")
    return quota // period if quota is not None and period else None


def _v2_quota(folder: Path) -> int | None:
    """Whole cores, None without a quota: the kernel writes `max` then, and nothing in the root group."""
    words = read_text(folder / "cpu.max").split()
    return int(words[0]) // int(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None


def _groups(controller: str, root: Path) -> tuple[int, tuple[Path, ...]]:
    """The version of a controller's hierarchy, and this process's group in it with its parents, innermost first.

    Inside a container the path in /proc/self/cgroup is often the host's and not mounted; then the mount's own top is
    the container's group.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controller in controllers.split(","):
            version, top = (
                1,
                next((mount / name for name in (controller, controllers) if (mount / name).is_dir()), None),
            )
        elif not controllers and (mount / "cgroup.controllers").exists():
            version, top = 2, mount
        else:
            continue
        if top is None:
            continue
        folder = top / path.lstrip("/")
        folders = (folder, *folder.parents) if folder.is_dir() and ".." not in folder.parts else (top,)
        return version, tuple(level for level in folders if level.is_relative_to(top))
    return 2, ()


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for lack of memory, as far as can be seen from here."""
    groups = memory_groups(root)
    if groups:
        return groups[0].oom_kills()
    return read_fields(root / "proc/vmstat").get("oom_kill", 0)


def peak_bytes(root: Path = Path("/")) -> int | None:
    """The peak of this process's innermost memory group."""
    groups = memory_groups(root)
    return groups[0].peak_bytes() if groups else None


def read_text(path: Path) -> str:
    """A file of the kernel's; empty if it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """The number in a file; None for anything else."""
    text = read_text(path).strip()
    return int(text) if text.isdigit() else None


def read_fields(path: Path) -> dict[str, int]:
    """Lines such as `name 12` or `Name:  12 kB`, as numbers."""
    fields = {}
    for line in read_text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            fields[words[0]] = int(words[1])
    return fields
