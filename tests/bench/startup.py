"""How fast Berth stands and how little it holds.

    .venv/bin/python -m tests.bench.startup [--rounds 5] [--precision int8]

Prints medians of: process start to a live page, `plan` from start to end, process start to a ready demo model;
the resident memory (VmRSS) of supervisor, gunicorn master, web worker and engine; and what the plan's `runtime` term
stands for: the anonymous memory of the engine, and of the three others together.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from entrypoint.machine.host import anonymous_bytes, tree_anonymous_bytes
from tests.processes.service import Service, run_entrypoint, running, wait_until

MIB = 1024**2
LIMITS = {
    "web alive, s": 2.0,
    "plan printed, s": 1.0,
    "demo ready, s": 15.0,
    "supervisor, MB": 60.0,
    "web worker, MB": 80.0,
}


def resident_mb(pid: int) -> float:
    """VmRSS in units of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} is gone")


def live(service: Service) -> bool:
    try:
        return service.request("GET", "/health/live", timeout=1)[0] == 200
    except OSError:
        return False


def one_round(precision: str) -> dict[str, float]:
    """One start from nothing, in a directory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        with running(Path(folder), GLM_PRECISION=precision) as service:
            wait_until(lambda: live(service), 30, "alive")
            alive = time.monotonic() - begin
            service.wait_for("ready", 120)
            ready = time.monotonic() - begin
            service.chat("hello", max_tokens=16)
            figures = {
                "web alive, s": alive,
                "demo ready, s": ready,
                "supervisor, MB": resident_mb(service.process.pid),
                "web master, MB": resident_mb(service.child("app.web")),
                "web worker, MB": resident_mb(service.web_worker()),
                "engine, MB": resident_mb(service.child("app.engine")),
            }
            engine = anonymous_bytes(service.child("app.engine"))
            figures["engine, anonymous MiB"] = engine / MIB
            figures["others, anonymous MiB"] = (tree_anonymous_bytes(service.process.pid) - engine) / MIB
            begin = time.monotonic()
            assert run_entrypoint("plan", GLM_STATE_DIR=str(service.state_dir)).returncode == 0
            return {**figures, "plan printed, s": time.monotonic() - begin}


def main() -> None:
    """Runs the rounds and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    rounds = [one_round(options.precision) for _ in range(options.rounds)]
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        limit = f"   limit {LIMITS[name]:g}" if name in LIMITS else ""
        print(f"{name:22} {statistics.median(values):8.2f}   ({min(values):.2f} to {max(values):.2f}){limit}")


if __name__ == "__main__":
    main()
