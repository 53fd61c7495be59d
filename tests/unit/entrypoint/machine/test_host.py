"""Control groups of both versions, as files below a folder that stands for the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.machine.cgroup import memory_groups, oom_kills, peak_bytes
from entrypoint.machine.host import memory_limit_bytes, read_host

GIB = 1024**3
V2 = ("memory.max", "memory.current", "memory.peak", "memory.events")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")


def machine(root: Path, ram: int = 32 * GIB, available: int = 30 * GIB, flags: str = "avx2") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {ram // 1024} kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc/cpuinfo").write_text(f"model name\t: Toy CPU\nflags\t\t: fpu {flags}\n")
    (root / "proc/self/cgroup").write_text("")
    return root


def group(folder: Path, names: tuple[str, ...], values: tuple[str, ...], stat: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, values, strict=True):
        (folder / name).write_text(value)
    (folder / "memory.stat").write_text(stat)


def test_no_limit_means_the_ram(tmp_path: Path) -> None:
    host = read_host(tmp_path, root=machine(tmp_path))
    assert (host.available_bytes, host.limit_bytes) == (30 * GIB, None)
    assert host.cpu_name == "Toy CPU"
    assert not host.cpu_bf16
    assert host.disk_free_bytes > 0


def test_native_bf16_is_seen(tmp_path: Path) -> None:
    assert read_host(tmp_path, root=machine(tmp_path, flags="avx512_bf16")).cpu_bf16


def test_v2_limit_counts_clean_file_pages_as_free(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("memory")
    stat = f"anon 5\ninactive_file {2 * GIB}\nactive_file {GIB}\nfile_dirty {GIB}\nfile_writeback 0\n"
    group(root / "sys/fs/cgroup", V2, (str(8 * GIB), str(4 * GIB), str(7 * GIB), "oom 1\noom_kill 3\n"), stat)
    host = read_host(tmp_path, root=root)
    assert host.limit_bytes == 8 * GIB
    assert host.available_bytes == (8 - 4 + 2 + 1 - 1) * GIB
    assert oom_kills(root) == 3
    assert peak_bytes(root) == 7 * GIB


def test_v2_max_is_no_limit(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("memory")
    group(root / "sys/fs/cgroup", V2, ("max", str(4 * GIB), "0", "oom_kill 0\n"))
    assert read_host(tmp_path, root=root).limit_bytes is None


def test_v1_huge_number_is_no_limit_and_a_parent_binds(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "proc/self/cgroup").write_text("5:cpu:/a\n4:memory,hugetlb:/a/b\n0::/\n")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file 0\ntotal_dirty 0\n"
    group(root / "sys/fs/cgroup/memory", V1, ("9223372036854771712", "0", "0", "oom_kill 0\n"), stat)
    group(root / "sys/fs/cgroup/memory/a", V1, (str(6 * GIB), str(3 * GIB), "0", "oom_kill 0\n"), stat)
    group(
        root / "sys/fs/cgroup/memory/a/b",
        V1,
        ("9223372036854771712", "7", "9", "oom_kill_disable 0\noom_kill 2\n"),
        stat,
    )
    host = read_host(tmp_path, root=root)
    assert host.limit_bytes == 6 * GIB
    assert host.available_bytes == (6 - 3 + 1) * GIB
    assert (oom_kills(root), peak_bytes(root)) == (2, 9)


def test_a_path_of_the_host_falls_back_to_the_mounts_top(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "proc/self/cgroup").write_text("4:memory:/docker/0123\n")
    group(root / "sys/fs/cgroup/memory", V1, (str(2 * GIB), str(GIB), "0", "oom_kill 0\n"))
    (level,) = memory_groups(root)
    assert level.folder == root / "sys/fs/cgroup/memory"
    assert read_host(tmp_path, root=root).available_bytes == GIB


def test_a_running_berth_counts_as_free_where_it_holds(tmp_path: Path) -> None:
    root = machine(tmp_path, available=20 * GIB)
    (root / "proc/self/cgroup").write_text("4:memory:/\n")
    group(root / "sys/fs/cgroup/memory", V1, (str(16 * GIB), str(10 * GIB), "0", "oom_kill 0\n"))
    assert read_host(tmp_path, 8 * GIB, True, root=root).available_bytes == 14 * GIB
    assert read_host(tmp_path, 8 * GIB, False, root=root).available_bytes == 6 * GIB
    assert read_host(tmp_path, 99 * GIB, True, root=root).available_bytes == 16 * GIB


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))


def cores(root: Path) -> int:
    return read_host(root, root=root).cpu_count


def v2(root: Path, path: str, **quotas: str) -> Path:
    """A unified hierarchy; `quotas` are the contents of cpu.max by the level's name, `top` for the mount's own."""
    top = machine(root) / "sys/fs/cgroup"
    (root / "proc/self/cgroup").write_text(f"0::{path}\n")
    (top / path.lstrip("/")).mkdir(parents=True)
    (top / "cgroup.controllers").write_text("cpu memory")
    folder = top
    for name in ("top", *path.strip("/").split("/")):
        folder = top if name == "top" else folder / name
        if name in quotas:
            (folder / "cpu.max").write_text(quotas[name] + "\n")
    return root


def v1(root: Path, path: str, mount: str, quotas: dict[str, tuple[int, int]]) -> Path:
    """The controllers of version 1; `quotas` are quota and period by the level's path below the mount."""
    (machine(root) / "proc/self/cgroup").write_text(f"5:cpu,cpuacct:{path}\n4:memory:/\n0::/\n")
    top = root / "sys/fs/cgroup" / mount
    for level, (quota, period) in quotas.items():
        folder = top / level
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")
    return root


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("quotas", "count"),
    [
        ({}, 64),
        ({"b": "max 100000"}, 64),
        ({"b": "400000 100000"}, 4),
        ({"a": "300000 100000", "b": "400000 100000"}, 3),
        ({"top": "200000 100000", "a": "max 100000"}, 2),
        ({"b": "150000 100000"}, 1),
        ({"b": "50000 100000"}, 1),
        ({"b": "12800000 100000"}, 64),
        ({"b": "nonsense"}, 64),
    ],
)
def test_a_quota_of_v2_at_any_level_bounds_the_cores(tmp_path: Path, quotas: dict[str, str], count: int) -> None:
    assert cores(v2(tmp_path, "/a/b", **quotas)) == count


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("quotas", "count"),
    [
        ({"a/b": (-1, 100000)}, 64),
        ({"a/b": (400000, 100000)}, 4),
        ({"a/b": (400000, 100000), "a": (250000, 100000)}, 2),
        ({"a/b": (-1, 100000), "": (600000, 100000)}, 6),
        ({"a/b": (10000, 100000)}, 1),
        ({"a/b": (400000, 0)}, 64),
    ],
)
def test_a_quota_of_v1_at_any_level_bounds_the_cores(
    tmp_path: Path, mount: str, quotas: dict[str, tuple[int, int]], count: int
) -> None:
    assert cores(v1(tmp_path, "/a/b", mount, quotas)) == count


@pytest.mark.usefixtures("many_cores")
def test_in_a_container_the_mounts_top_holds_the_quota(tmp_path: Path) -> None:
    """Its path in /proc/self/cgroup is the host's."""
    assert cores(v1(tmp_path / "1", "/docker/0123", "cpu", {"": (400000, 100000)})) == 4
    root = v2(tmp_path / "2", "/", top="400000 100000")
    (root / "proc/self/cgroup").write_text("0::/../docker/0123\n")
    assert cores(root) == 4


def test_the_affinity_bounds_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5})
    assert cores(v2(tmp_path / "quota", "/a", a="400000 100000")) == 2
    assert cores(machine(tmp_path / "none")) == 2


def test_the_limit_is_one_for_the_plan_and_for_a_death(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert memory_limit_bytes(root) is None
    (root / "proc/self/cgroup").write_text("4:memory:/\n")
    group(root / "sys/fs/cgroup/memory", V1, (str(16 * GIB), "0", "0", "oom_kill 0\n"))
    assert memory_limit_bytes(root) == read_host(root, root=root).limit_bytes == 16 * GIB
