"""Kill -9, again and again, at moments that a seed picks: the service comes back, nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.processes.service import Service, alive, descendants, running, wait_until
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=512, context=512)
ROUNDS = 12

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(folder, SHAPE)
    return folder


def victims(service: Service) -> dict[str, int]:
    found = {}
    for name in ("app.engine", "app.web"):
        try:
            found[name] = service.child(name)
        except (AssertionError, FileNotFoundError):
            continue  # on its way back
    if "app.web" in found and (workers := descendants(found["app.web"])):
        found["worker"] = workers[0]
    return found


def some_victim(service: Service, picks: random.Random) -> tuple[str, int]:
    """Waits where all of them are gone: after kills in a row each sits out its own backoff."""
    deadline = time.monotonic() + 30
    while not (found := victims(service)):
        assert time.monotonic() < deadline, "nobody came back within 30 s"
        time.sleep(0.02)
    return picks.choice(sorted(found.items()))


def held_descriptors(service: Service) -> int:
    """How many the supervisor keeps: the fewest of a second, since a file that it just writes is open for a moment."""
    folder, counts = Path(f"/proc/{service.process.pid}/fd"), []
    for _ in range(20):
        counts.append(len(list(folder.iterdir())))
        time.sleep(0.05)
    return min(counts)


def test_any_child_at_any_moment(model: Path, tmp_path: Path) -> None:
    picks = random.Random(20261122)
    with running(tmp_path, GLM_MODEL=str(model)) as service:
        service.wait_for("ready")
        descriptors = held_descriptors(service)
        for _ in range(ROUNDS):
            time.sleep(picks.uniform(0, 4))
            name, pid = some_victim(service, picks)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not alive(pid), 5, f"{name} is gone")
        wait_until(lambda: service.phase() == "ready", 120, "ready at the end")
        assert service.chat("hello", max_tokens=3)[0] == 200
        assert len(descendants(service.process.pid)) == 3
        assert held_descriptors(service) == descriptors
        assert "Traceback" not in service.log()


def test_the_supervisor_at_any_moment_of_its_start(model: Path, tmp_path: Path) -> None:
    picks = random.Random(20261123)
    settings = {"GLM_MODEL": str(model)}
    for _ in range(ROUNDS):
        with running(tmp_path, **settings) as service:
            settings["GLM_PORT"] = str(service.port)
            time.sleep(picks.uniform(0.1, 5))
            children = descendants(service.process.pid)
            service.process.kill()
            service.process.wait()
            wait_until(lambda pids=children: not any(alive(pid) for pid in pids), 3, "the children are gone")
    with running(tmp_path, **settings) as service:
        service.wait_for("ready")
        assert service.chat("hello", max_tokens=3)[0] == 200
