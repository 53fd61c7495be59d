"""The main job, outside a container: measured, planned, launched, asked; and brought back when a process dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from app.contract.config import read_config
from tests.processes.service import Service, alive, descendants, free_port, run_entrypoint, running, wait_until
from tests.sparse import sparse_checkpoint
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=512, context=512)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(folder, SHAPE)
    return folder


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), GLM_MODEL=str(model)) as service:
        service.wait_for("ready")
        yield service


def test_the_precision_is_measured_and_explained(service: Service, model: Path) -> None:
    status = service.status()
    assert status["precision"] in ("bf16", "fp32")
    chosen = status["plan"]["chosen"]
    assert chosen["precision"] == status["precision"]
    assert chosen["reason"]["code"] == "highest_that_fits"
    assert chosen["reason"]["values"]["need_bytes"] == chosen["need_bytes"]
    assert status["model_why"]["en"] == f"Set by you: GLM_MODEL={model}."
    assert 0 < status["proof"]["measured_bytes"] < status["proof"]["planned_bytes"]
    assert chosen["need_bytes"] <= chosen["free_bytes"]
    config = read_config(service.state_dir / "config.json")
    assert config.ENGINE is not None
    assert config.ENGINE.precision == status["precision"]
    assert config.ENGINE.device_map == {"": "cpu"}
    assert {origin.name for origin in config.ORIGINS} >= {"GLM_MODEL", "GLM_PRECISION", "GLM_MAX_MODEL_LEN"}


def test_it_chats(service: Service) -> None:
    code, answer = service.chat("hello", max_tokens=5)
    assert code == 200
    assert answer["usage"]["completion_tokens"] <= 5
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_official_client_streaming_and_not(service: Service) -> None:
    with OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none") as client:
        (model,) = client.models.list().data
        messages: Any = [{"role": "user", "content": "你好"}]
        whole = client.chat.completions.create(model=model.id, messages=messages, max_tokens=12, temperature=0)
        chunks = client.chat.completions.create(
            model=model.id,
            messages=messages,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        *parts, last = list(chunks)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage


def test_the_log_has_the_table_and_the_address(service: Service) -> None:
    wait_until(lambda: "ready: " in service.log(), 30, "the last line of the start")  # written behind the status
    log = service.log()
    assert "Chosen  " in log
    assert f"Open http://127.0.0.1:{service.port} (GLM_AUTH=off" in log
    assert "memory: planned" in log


def test_plan_beside_it_writes_nothing_and_counts_its_memory_as_free(service: Service, model: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in service.state_dir.iterdir()}
    settings = {"GLM_MODEL": str(model), "GLM_STATE_DIR": str(service.state_dir)}
    done = run_entrypoint("plan", "--json", **settings)
    assert done.returncode == 0, done.stderr
    beside = json.loads(done.stdout)
    held = json.loads((service.state_dir / "held.json").read_text())["anonymous_bytes"]
    assert beside["host"]["held_bytes"] == held > 50_000_000
    assert {path: path.stat().st_mtime_ns for path in service.state_dir.iterdir()} == before
    assert "used by a running Berth" in run_entrypoint("plan", **settings).stdout


def test_a_second_one_on_the_same_state_is_refused(service: Service, model: Path) -> None:
    done = run_entrypoint(
        "serve", GLM_MODEL=str(model), GLM_STATE_DIR=str(service.state_dir), GLM_PORT=str(free_port())
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "another Berth uses it" in done.stderr


def test_no_process_but_the_engine_has_torch(service: Service) -> None:
    for pid in [service.process.pid, *descendants(service.process.pid)]:
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert ("libtorch" in maps) == (pid == service.child("app.engine")), pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_quickly(model: Path, tmp_path: Path, number: int) -> None:
    with running(tmp_path, GLM_MODEL=str(model)) as service:
        service.wait_for("ready")
        children = descendants(service.process.pid)
        start = time.monotonic()
        assert service.stop(number) == 0
        assert time.monotonic() - start < 5
        assert not any(alive(pid) for pid in children)
        assert "Traceback" not in service.log()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("berth-")] == []


def test_it_stops_while_loading(model: Path, tmp_path: Path) -> None:
    with running(tmp_path, GLM_MODEL=str(model)) as service:
        service.wait_for("loading")
        assert service.stop() == 0
        assert "Traceback" not in service.log()


def test_kill_9_of_the_engine(model: Path, tmp_path: Path) -> None:
    with running(tmp_path, GLM_MODEL=str(model)) as service:
        service.wait_for("ready")
        engine = service.child("app.engine")
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: service.status()["deaths"] == 1, 5, "the death is seen")
        death = service.status()["last_death"]
        assert (death["cause"], death["signal"], death["phase"]) == ("killed_by_signal", 9, "ready")
        assert service.request("GET", "/health/live")[0] == 200
        status = service.wait_for("ready")
        assert [attempt["outcome"] for attempt in status["attempts"]] == ["died", "ready"]
        assert service.child("app.engine") != engine
        assert service.chat("hello", max_tokens=3)[0] == 200


def test_kill_9_of_the_web_worker_and_of_its_master(model: Path, tmp_path: Path) -> None:
    with running(tmp_path, GLM_MODEL=str(model)) as service:
        service.wait_for("ready")
        engine = service.child("app.engine")
        for find_victim in (service.web_worker, lambda: service.child("app.web")):
            victim, worker = find_victim(), service.web_worker()
            os.kill(victim, signal.SIGKILL)
            # The worker outlives its master by milliseconds, in which it may still say that it is ready.
            wait_until(lambda both=(victim, worker): not any(map(alive, both)), 5, "both are gone")
            wait_until(lambda: service.phase() == "ready", 10, "the page is back")
            assert service.chat("hello", max_tokens=3)[0] == 200
        assert service.child("app.engine") == engine


def test_kill_9_of_the_supervisor_leaves_no_orphan_and_no_busy_port(model: Path, tmp_path: Path) -> None:
    with running(tmp_path, GLM_MODEL=str(model)) as service:
        service.wait_for("ready")
        children = descendants(service.process.pid)
        assert len(children) >= 3
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in children), 3, "the children are gone")
        settings = {"GLM_MODEL": str(model), "GLM_PORT": str(service.port), "GLM_STATE_DIR": str(service.state_dir)}
        with running(tmp_path, **settings) as again:
            again.wait_for("ready")
            assert again.chat("hello", max_tokens=3)[0] == 200


def test_an_explicit_precision_that_does_not_fit_stays_up_to_explain(model: Path, tmp_path: Path) -> None:
    big = sparse_checkpoint(tmp_path / "big")
    with running(tmp_path, GLM_MODEL=str(big), GLM_PRECISION="fp32") as service:
        status = service.wait_for("failed", 10)
        why = status["refusal"]["why"]
        assert (why["code"], why["values"]["precision"], why["values"]["devices"]) == (
            "model_too_large",
            "fp32",
            ["cpu"],
        )
        assert status["refusal"]["env_line"] == "GLM_PRECISION=auto"
        code, body = service.request("GET", "/health/ready")
        assert code == 503
        assert body["phase"] == "failed"
        code, body = service.chat("hello")
        assert code == 503
        assert "does not fit" in body["error"]["message"]
    done = run_entrypoint(
        "serve",
        GLM_MODEL=str(big),
        GLM_PRECISION="fp32",
        GLM_ON_REFUSAL="exit",
        GLM_PORT=str(free_port()),
        GLM_STATE_DIR=str(tmp_path / "exit"),
    )
    assert done.returncode == 3
    assert "GLM_PRECISION=auto" in done.stderr
    assert run_entrypoint("plan", GLM_MODEL=str(big), GLM_PRECISION="fp32").returncode == 3


def test_settings_come_from_a_dotenv_file_and_the_environment_wins(model: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"GLM_MODEL={model}\nGLM_PRECISION=int9\n", encoding="utf-8")
    with running(tmp_path) as service:
        assert service.process.wait(timeout=20) == 2
        assert "berth: GLM_PRECISION=int9: should be auto" in service.log()
    with running(tmp_path, GLM_PRECISION="fp32") as service:
        assert service.wait_for("ready")["precision"] == "fp32"


def test_a_required_gpu(model: Path, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    done = run_entrypoint("plan", GLM_MODEL=str(model), GLM_REQUIRE_GPU="1")
    assert done.returncode == 3
    assert "GLM_REQUIRE_GPU=1, but there is no GPU" in done.stdout
    assert "GLM_REQUIRE_GPU=0" in done.stdout


def test_a_port_in_use(model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        start = time.monotonic()
        done = run_entrypoint("serve", GLM_MODEL=str(model), GLM_PORT=str(port), GLM_STATE_DIR=str(tmp_path / "s"))
        assert time.monotonic() - start < 4
    assert done.returncode == 2
    assert f"GLM_PORT={port}: in use on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"GLM_MODEL": "no/such/model"}, "GLM_MODEL=no/such/model: no folder at no/such/model"),
        ({"GLM_PRECISION": "int3"}, "GLM_PRECISION=int3: should be auto or one of"),
        ({"GLM_PRECISSION": "int8"}, "GLM_PRECISSION is not a setting; did you mean GLM_PRECISION?"),
        ({"GLM_BIND": "203.0.113.7", "GLM_AUTH": "on"}, "GLM_BIND=203.0.113.7: "),
        ({"GLM_BIND": "0.0.0.0"}, "GLM_AUTH=off: only allowed on a loopback address; GLM_BIND=0.0.0.0 is not one"),
        ({"GLM_MAX_MODEL_LEN": "99999"}, "GLM_MAX_MODEL_LEN=99999: should be at most 512"),
        ({"GLM_STATE_DIR": "/proc/berth"}, "GLM_STATE_DIR=/proc/berth can't be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(model: Path, tmp_path: Path, settings: dict[str, str], says: str) -> None:
    start = time.monotonic()
    given = {"GLM_MODEL": str(model), "GLM_PORT": str(free_port()), "GLM_STATE_DIR": str(tmp_path / "s"), **settings}
    done = run_entrypoint("serve", **given)
    assert time.monotonic() - start < 4
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("berth: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in done.stderr


def test_a_damaged_checkpoint_is_one_line_and_exit_2(model: Path, tmp_path: Path) -> None:
    for name, damage in (("config.json", b"{"), ("model.safetensors", b"12345")):
        folder = tmp_path / name
        folder.mkdir()
        for path in model.iterdir():
            (folder / path.name).write_bytes(damage if path.name == name else path.read_bytes())
        for command in ("plan", "serve"):
            done = run_entrypoint(
                command, GLM_MODEL=str(folder), GLM_PORT=str(free_port()), GLM_STATE_DIR=str(tmp_path / "s")
            )
            assert done.returncode == 2
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("berth: ")]
            assert name in line
            assert "copy" in line
