"""What a container's processes hold, read from inside by a shell: it takes next to no memory itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.container.lab import Service

MIB = 1024**2
SETTLE_SECONDS = 180.0
READ = r"""
for p in /proc/[0-9]*; do
  [ "$p" = "/proc/$$" ] && continue
  line=$(tr '\0' ' ' <"$p/cmdline" 2>/dev/null) || continue
  case $line in *" -m app."*|*" -m entrypoint "*) ;; *) continue ;; esac
  echo "process ${p#/proc/} $(ls "$p/fd" | wc -l) $(sed -n 's/^\(PPid\|Threads\|RssAnon\):\s*\([0-9]*\).*/\2/p' \
    "$p/status" | tr '\n' ' ')$line"
done 2>/dev/null
cd /sys/fs/cgroup; [ -d memory ] && cd memory
echo "usage $(cat memory.current memory.usage_in_bytes 2>/dev/null)"
sed -n 's/^\(total_\)\?\(active_file\|inactive_file\) /\1\2 /p' memory.stat
sed -n 's/^oom_kill /oom_kill /p' memory.events memory.oom_control 2>/dev/null
find /tmp /run/berth /dev/shm -type f 2>/dev/null | sort | sed 's/^/file /'
true
"""


@dataclass(frozen=True)
class Process:
    """One of ours."""

    pid: int
    descriptors: int
    threads: int
    anonymous_bytes: int


@dataclass(frozen=True)
class Sample:
    """The container at a moment."""

    processes: dict[str, Process]
    """By role: supervisor, web (gunicorn's master), worker, engine."""
    held_bytes: int
    """Of the container, less the files that the kernel caches for it."""
    oom_kills: int
    files: tuple[str, ...]

    @property
    def pids(self) -> dict[str, int]:
        return {role: process.pid for role, process in self.processes.items()}

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Descriptors and threads of each."""
        return {role: (process.descriptors, process.threads) for role, process in self.processes.items()}


def sample(service: Service) -> Sample:
    """Reads it now."""
    found: list[tuple[str, int, Process]] = []
    numbers: dict[str, int] = {}
    files = []
    for line in service.exec("sh", "-c", READ).stdout.splitlines():
        name, _, rest = line.partition(" ")
        if name == "process":
            pid, descriptors, parent, anonymous, threads, command = rest.split(maxsplit=5)
            process = Process(int(pid), int(descriptors), int(threads), int(anonymous) * 1024)
            found.append((command, int(parent), process))
        elif name == "file":
            files.append(rest)
        elif rest:
            numbers[name] = int(rest.split()[0])
    cached = sum(numbers.get(f"total_{name}", numbers.get(name, 0)) for name in ("active_file", "inactive_file"))
    return Sample(_by_role(found), numbers["usage"] - cached, numbers.get("oom_kill", 0), tuple(files))


def _by_role(found: list[tuple[str, int, Process]]) -> dict[str, Process]:
    web = {process.pid for command, _, process in found if " -m app.web " in command}
    roles = {}
    for command, parent, process in found:
        if " -m app.engine " in command:
            roles["engine"] = process
        elif " -m app.web " in command:
            roles["worker" if parent in web else "web"] = process
        elif not command.startswith("/usr/bin/tini"):
            roles["supervisor"] = process
    return roles


def settled(service: Service, fine: Callable[[Sample], bool] = lambda _: True) -> Sample:
    """The container once its descriptors, threads and files stay the same and are fine; the last one seen otherwise."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before, now = None, sample(service)
    while time.monotonic() < deadline:
        if before is not None and (before.counts, before.files) == (now.counts, now.files) and fine(now):
            return now
        time.sleep(2.0)
        before, now = now, sample(service)
    return now
