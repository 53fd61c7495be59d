"""Mixed load for a long time, in a container with the memory that the plan asks for: nothing grows, nothing leaks.

    .venv/bin/python -m tests.bench.soak [--minutes 30] [--model FOLDER] [--slots 4] [--max-model-len 1024]

Builds the image, plans, gives the container that memory, and asks it for so many minutes: short and long, sampled and
greedy, cancelled in the answer and in the prompt, over-long, malformed, half sent, slowly read. Prints what was held
after the first minute and at the end; 1 is the exit code where something grew, leaked, died or had no end. Needs a
Docker engine. tests/container/test_soak.py runs the same for five minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.plan.footprint import SERVICE_BYTES
from entrypoint.state.app_config import QUEUE_LIMIT
from entrypoint.supervisor.web_process import THREADS_BESIDE_STREAMS
from tests.bench.soak_load import KINDS, Load, Target, ask, chat, stream
from tests.bench.soak_watch import Sample, sample, settled
from tests.container import lab

MIB = 1024**2
KEY = "soak-0123456789abcdef0123456789abcdef"
WARM_UP_SECONDS = 60.0
SAMPLE_SECONDS = 5.0
READY_SECONDS = 600.0
CLIENTS = 12
UNTOUCHED_BYTES = 24 * MIB
"""Of the kernel's own for the container, which no plan can know; on top of what runs already when the plan is made."""
ENGINE_GROWTH_BYTES = 16 * MIB
WEB_GROWTH_BYTES = 24 * MIB
MORE_DESCRIPTORS, MORE_THREADS = 16, 4


@dataclass
class Report:
    """What was found; `wrong` is empty where all is well."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def check(self, fine: bool, text: str) -> None:
        self.lines.append(text)
        if not fine:
            self.wrong.append(text)


@dataclass(frozen=True)
class Model:
    """What is served, and how."""

    slots: int = 4
    max_model_len: int = 1024
    folder: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        sizes = {"GLM_MAX_NUM_SEQS": str(self.slots), "GLM_MAX_MODEL_LEN": str(self.max_model_len)}
        return {"GLM_MODEL": self.folder.name if self.folder else "demo", "GLM_API_KEY": KEY, **sizes}

    @property
    def options(self) -> list[str]:
        return ["--volume", f"{self.folder.parent}:/host-models:ro"] if self.folder else []


def planned_bytes(model: Model, image: str) -> int:
    """What the plan asks for."""
    env = [part for key, value in model.env.items() for part in ("--env", f"{key}={value}")]
    done = lab.docker("run", "--rm", *env, *model.options, image, "plan", "--json", check=False)
    chosen = json.loads(done.stdout)["chosen"]
    assert chosen is not None, done.stdout
    return int(chosen["need_bytes"])


def soak(containers: lab.Containers, model: Model, minutes: float) -> Report:
    """Starts a container with the planned memory and loads it."""
    report = Report()
    need = planned_bytes(model, containers.image)
    # When the plan is made, supervisor and web service run already, and it counts them once more.
    limit = need + SERVICE_BYTES + UNTOUCHED_BYTES
    service = containers.start(env=model.env, options=model.options, memory=str(limit))
    status = _wait(service, lambda status: status.get("phase") in ("ready", "failed"), READY_SECONDS)
    report.check(status.get("phase") == "ready", f"plan {need // MIB} MiB, limit {limit // MIB}: {status.get('phase')}")
    if report.wrong:
        report.lines.append(service.logs())
        return report
    target = Target(service.port, KEY, model.max_model_len, _tokens_a_word(service.port))
    _load(target, report, WARM_UP_SECONDS, seed=1, watch=lambda: None)
    before = _quiet(service, model, lambda _: True)
    held = [before]
    _load(target, report, minutes * 60 - WARM_UP_SECONDS, seed=2, watch=lambda: held.append(sample(service)))
    after = _quiet(service, model, lambda now: not _leaks(before, now, model))
    held.append(after)
    _compare(report, before, after, held, need, model)
    _fill_every_slot(report, target, model)
    _still_the_same(report, service, before, status)
    if report.wrong:
        report.lines.append(service.logs()[-8000:])
    return report


def _wait(service: lab.Service, fine: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
    """The status, once it is fine or the time is over."""
    deadline = time.monotonic() + seconds
    status: dict[str, Any] = {}
    while time.monotonic() < deadline and not fine(status) and service.state()["Status"] == "running":
        try:
            code, text = ask(service.port, KEY, "GET", "/api/status")
            status = json.loads(text) if code == 200 else {}
        except (OSError, ValueError):
            status = {}
        time.sleep(0.2)
    return status


def _tokens_a_word(port: int) -> float:
    def count(words: int) -> int:
        status, text = ask(port, KEY, "POST", "/tokenize", chat("memory " * words))
        assert status == 200, text
        return int(json.loads(text)["count"])

    return (count(60) - count(10)) / 50


def _load(target: Target, report: Report, seconds: float, seed: int, watch: Callable[[], None]) -> None:
    load, end = Load(target, CLIENTS, seed), time.monotonic() + seconds
    load.start()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, SAMPLE_SECONDS))
        watch()
    load.stop()
    told = ", ".join(f"{count} {name}" for name, count in sorted(load.outcomes.items()))
    report.check(not load.failures, f"{sum(load.outcomes.values())} requests in {seconds:.0f} s: {told}")
    report.wrong += load.failures
    asked = {name.partition(":")[0] for name in load.outcomes}
    missing = {kind.__name__.strip("_") for kind in KINDS} - asked
    report.check(not missing, f"every kind was asked{', but ' if missing else ''}{', '.join(sorted(missing))}")


def gauge(port: int, name: str) -> float:
    """One number of /metrics; NaN where it isn't told."""
    status, text = ask(port, KEY, "GET", "/metrics")
    values = [line.split()[-1] for line in text.splitlines() if line.partition(" ")[0] == name]
    return float(values[0]) if status == 200 and values else float("nan")


def _quiet(service: lab.Service, model: Model, fine: Callable[[Sample], bool]) -> Sample:
    """The container when nothing runs and waits any more."""
    names = ("berth_num_requests_running", "berth_num_requests_waiting")
    return settled(service, lambda now: all(gauge(service.port, name) == 0 for name in names) and fine(now))


def _leaks(before: Sample, after: Sample, model: Model) -> list[str]:
    """What did not go back to what it was. gunicorn's threads stay, up to as many as it may have."""
    pool = QUEUE_LIMIT + model.slots + THREADS_BESIDE_STREAMS
    lines = [f"files: {before.files} before, {after.files} after"] if len(after.files) > len(before.files) else []
    for role, process in after.processes.items():
        was = before.processes.get(role, process)
        threads = max(was.threads, pool if role == "worker" else 0) + MORE_THREADS
        if process.descriptors > was.descriptors + MORE_DESCRIPTORS or process.threads > threads:
            lines.append(f"{role}: {was} before, {process} after")
    return lines


def _compare(report: Report, before: Sample, after: Sample, held: list[Sample], need: int, model: Model) -> None:
    for line in _leaks(before, after, model):
        report.check(False, line)
    for role, allowed in (("engine", ENGINE_GROWTH_BYTES), ("worker", WEB_GROWTH_BYTES), ("supervisor", 8 * MIB)):
        first = before.processes[role].anonymous_bytes
        most = max(one.processes[role].anonymous_bytes for one in held if role in one.processes)
        last = after.processes[role].anonymous_bytes
        grown = last - first if role != "engine" else max(last, most) - first
        text = f"{role}: {first / MIB:.1f} MiB after a minute, at most {most / MIB:.1f}, {last / MIB:.1f} at the end"
        report.check(grown <= allowed, text)
    most = max(one.held_bytes for one in held)
    report.check(most <= need, f"container: at most {most / MIB:.1f} MiB held, {need / MIB:.1f} planned")
    report.check(after.oom_kills == 0, f"{after.oom_kills} processes killed for lack of memory")
    report.lines.append(f"descriptors and threads: {before.counts}, at the end {after.counts}")


def _fill_every_slot(report: Report, target: Target, model: Model) -> None:
    """Asks until every slot is seen in use at once."""
    over = threading.Event()

    def keep_asking(draw: random.Random) -> None:
        while not over.is_set():
            stream(target, chat(target.words(model.max_model_len / 2), max_tokens=60, seed=draw.randrange(99)))

    askers = [threading.Thread(target=keep_asking, args=(random.Random(seed),)) for seed in range(2 * model.slots)]
    for asker in askers:
        asker.start()
    most, deadline = 0.0, time.monotonic() + 120
    while most < model.slots and time.monotonic() < deadline:
        most = max(most, gauge(target.port, "berth_num_requests_running"))
    over.set()
    for asker in askers:
        asker.join(180)
    report.check(most == model.slots, f"{most:.0f} of {model.slots} slots seen in use at once")


def _still_the_same(report: Report, service: lab.Service, before: Sample, first: dict[str, Any]) -> None:
    now, status = sample(service), _wait(service, lambda status: status.get("phase") == "ready", 30)
    report.check(now.pids == before.pids, f"processes {before.pids} before, {now.pids} after")
    report.check((status.get("phase"), status.get("deaths")) == ("ready", 0), f"{status.get('deaths')} deaths")
    report.check(service.inspect()["RestartCount"] == 0, "the container was not restarted")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; the demo model otherwise")
    parser.add_argument("--slots", type=int, default=Model.slots)
    parser.add_argument("--max-model-len", type=int, default=Model.max_model_len)
    options = parser.parse_args()
    if missing := lab.engine_missing():
        print(f"soak: {missing}", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory() as scratch,
        lab.project(Path(scratch), lab.IMAGE, files=lab.overlay()) as project,
    ):
        project.compose("build", timeout=1800)
    containers = lab.Containers(lab.IMAGE)
    try:
        report = soak(containers, Model(options.slots, options.max_model_len, options.model), options.minutes)
    finally:
        containers.remove_all()
    print("\n".join(report.lines))
    print("\n".join(["all is well"] if not report.wrong else ["", "wrong:", *report.wrong]))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
