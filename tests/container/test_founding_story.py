"""What Berth exists for, in real containers with real limits: a 16-bit checkpoint that is too large for the memory.

650 M parameters need, with one request's cache, activations, runtime and margin: bf16 1744 to 1816 MiB at the shortest
context, by the kind of CPU, and 1831 to 1902 at the full one; int8 1170 to 1186 and 1260 to 1272; int4 896 to 915 and
982 to 1005; each request more at full context 112. The limits lie between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.units import size
from tests.container.lab import Containers, Service, docker, unique
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(
    hidden=2048, layers=14, heads=16, kv_heads=2, head_dim=128, intermediate=5632, vocab=8192, context=8192
)
TOO_SMALL_FOR_BF16 = "1700m"
FITS_INT8 = TOO_SMALL_FOR_BF16
"""Room for four requests."""
TAKES_ROOM_OF_INT8 = 600
"""MB of a neighbour beside which int8 does not fit even with the shortest context, and int4 does."""
TOO_SMALL_FOR_INT8 = "1150m"
MIB = 1024**2
log = logging.getLogger(__name__)

NEIGHBOUR = """
import sys, time
held = bytearray(int(sys.argv[1]))
for place in range(0, len(held), 4096):
    held[place] = 1
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def model(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("founding") / "toy-650m"
    make_checkpoint(folder, SHAPE)
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def volume() -> Iterator[str]:
    name = unique("state")
    yield name
    docker("volume", "rm", "--force", name, check=False)


def start(containers: Containers, model: Path, memory: str, **settings: str) -> Service:
    env = {"GLM_MODEL": model.name, **settings}
    return containers.start(env=env, options=["--volume", f"{model.parent}:/host-models:ro"], memory=memory)


def peak_bytes(service: Service) -> int:
    v1, v2 = "/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "/sys/fs/cgroup/memory.peak"
    return int(service.exec("sh", "-c", f"cat {v1} 2>/dev/null || cat {v2}").stdout)


def occupy(service: Service, megabytes: int, seconds: float) -> None:
    """A neighbour in the same container takes memory and holds it for some seconds."""
    docker("exec", "--detach", service.name, "python", "-c", NEIGHBOUR, str(megabytes * MIB), str(seconds))


def wait_for_death(service: Service) -> dict[str, Any]:
    """The first death's certificate; `recovering` itself may be over in a blink."""
    end = time.monotonic() + 30
    while not (status := service.status()).get("deaths"):
        assert time.monotonic() < end, f"nobody died: {service.logs()}"
        time.sleep(0.1)
    death: dict[str, Any] = status["last_death"]
    return death


def test_an_explicit_bf16_is_refused_before_anything_is_loaded(containers: Containers, model: Path) -> None:
    began = time.monotonic()
    service = start(containers, model, TOO_SMALL_FOR_BF16, GLM_PRECISION="bf16")
    status = service.wait_for("failed", seconds=20)
    assert time.monotonic() - began < 15
    assert status["attempts"] == []
    why, remedy = status["refusal"]["why"], status["refusal"]["remedy"]
    assert (why["code"], why["values"]["precision"], why["values"]["devices"]) == ("model_too_large", "bf16", ["cpu"])
    assert why["values"]["short_bytes"] > 0
    assert status["refusal"]["env_line"] == "GLM_PRECISION=auto"
    assert (remedy["code"], remedy["values"]["precision"]) == ("setting_makes_it_fit", "int8")
    assert "GLM_PRECISION=auto" in service.logs()
    assert service.get("/health/live").status == 200
    assert service.get("/health/ready").status == 503
    assert peak_bytes(service) < 400 * MIB


@pytest.mark.parametrize(("memory", "precision"), [(FITS_INT8, "int8"), (TOO_SMALL_FOR_INT8, "int4")])
def test_auto_takes_the_precision_that_the_limit_allows(
    containers: Containers, model: Path, memory: str, precision: str
) -> None:
    service = start(containers, model, memory)
    status = service.wait_for("ready", "failed", seconds=180)
    assert (status["phase"], status["precision"]) == ("ready", precision)
    chosen = status["plan"]["chosen"]
    assert chosen["need_bytes"] <= chosen["free_bytes"] <= status["plan"]["host"]["limit_bytes"]
    assert status["proof"]["measured_bytes"] <= status["proof"]["planned_bytes"]
    assert status["deaths"] == 0
    answer = service.chat("hello", max_tokens=8)
    assert answer.status == 200
    assert answer.json()["usage"]["completion_tokens"] > 0
    planned, measured = status["proof"]["planned_bytes"] // MIB, status["proof"]["measured_bytes"] // MIB
    log.info(
        "%s: %s, MiB planned %d, measured %d, container %d",
        memory,
        precision,
        planned,
        measured,
        peak_bytes(service) // MIB,
    )


def test_a_real_oom_kill_is_named_and_recovered_from(containers: Containers, model: Path) -> None:
    service = start(containers, model, FITS_INT8)
    status = service.wait_for("ready", seconds=180)
    limit = status["plan"]["host"]["limit_bytes"]
    occupy(service, 1000, 4)
    death = wait_for_death(service)
    assert death["cause"] == "killed_by_kernel_oom"
    assert death["phase"] == "ready"
    assert death["limit_bytes"] == limit
    assert limit - 64 * MIB <= death["peak_bytes"] <= limit
    killed = f"killed the model process in service because memory ran out (out of memory, limit {size(limit)}"
    assert killed in service.logs()
    assert service.get("/health/live").status == 200
    back = service.wait_for("ready", "failed", seconds=120)
    assert (back["phase"], back["precision"], back["deaths"]) == ("ready", "int8", 1)
    assert status["max_num_seqs"] > 1
    assert back["max_num_seqs"] == status["max_num_seqs"] // 2
    assert back["max_model_len"] == status["max_model_len"]
    (why,) = [origin["why"] for origin in back["plan"]["origins"] if origin["name"] == "GLM_MAX_NUM_SEQS"]
    assert (why["code"], why["values"]) == ("ran_out_with_slots", {"max_num_seqs": status["max_num_seqs"]})
    assert service.chat("hello", max_tokens=4).status == 200
    assert service.inspect()["RestartCount"] == 0


def test_memory_that_stays_taken_costs_a_rung(containers: Containers, model: Path) -> None:
    service = start(containers, model, FITS_INT8)
    service.wait_for("ready", seconds=180)
    occupy(service, 1000, 2)
    wait_for_death(service)
    occupy(service, TAKES_ROOM_OF_INT8, 600)
    back = service.wait_for("ready", "failed", seconds=180)
    assert (back["phase"], back["precision"]) == ("ready", "int4"), back["refusal"]
    reasons = {rung["precision"]: rung["reason"]["code"] for rung in back["plan"]["rungs"]}
    assert reasons["int8"] in ("ran_out_before", "short_of_memory")
    assert service.chat("hello", max_tokens=4).status == 200


def test_the_config_of_a_killed_container_is_rewritten_by_the_next(
    containers: Containers, model: Path, volume: str
) -> None:
    options = ["--volume", f"{model.parent}:/host-models:ro", "--volume", f"{volume}:/data"]
    first = containers.start(env={"GLM_MODEL": model.name}, options=options, memory=FITS_INT8)
    first.wait_for("ready", seconds=180)
    docker("kill", first.name)
    second = containers.start(env={"GLM_MODEL": model.name}, options=options, memory=TOO_SMALL_FOR_INT8)
    status = second.wait_for("ready", "failed", seconds=180)
    assert (status["phase"], status["precision"]) == ("ready", "int4")
    assert '"precision": "int4"' in second.exec("cat", "/data/config.json").stdout
