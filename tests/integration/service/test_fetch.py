"""The whole service with a model from a hub: planned, downloaded, served; and the demo where a default can't be had."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.hub.cache import HubCache
from tests.hub_server import COMMIT, HubServer, hub_serving
from tests.paths import FIXTURES
from tests.processes.service import Service, alive, free_port, run_entrypoint, running, wait_until
from tests.sparse import GLM4_9B, sparse_checkpoint

REPO = "zai-org/chatglm3-6b"
FIXTURE = FIXTURES / "chatglm3-tiny"
TOKEN = "hf_sesame_open"
AFTER_THE_HEADER = {"model-00001-of-00003.safetensors": 150_000}
"""The plan's read of that file ends before it."""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_serving(**{REPO.replace("/", "__"): FIXTURE}) as server:
        yield server


def settings_for(hub: HubServer, tmp_path: Path, **settings: str) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, **settings}


def downloading(service: Service, least: int) -> None:
    """Waits until so many bytes of the download have been seen."""

    def there() -> bool:
        if service.phase() != "downloading":
            return False
        return bool((service.status()["progress"] or {}).get("done_bytes", 0) > least)

    wait_until(there, 60, "bytes of the download")


def secrets_of(service: Service, pids: list[int]) -> str:
    """Everything that a process of the service shows or has written, and that is no business of the token's."""
    seen = [service.log(), str(service.status())]
    seen += [path.read_text(errors="replace") for path in service.state_dir.glob("*.json")]
    seen += [path.read_text(errors="replace") for path in service.state_dir.parent.glob("berth-*/*.json")]
    return "".join(seen + [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids])


def test_planned_downloaded_served_and_kept(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.bytes_per_second = 60_000
    settings = settings_for(hub, tmp_path, GLM_MODEL=REPO)
    with running(tmp_path, **settings) as service:
        downloading(service, 60_000)
        status = service.status()
        assert status["plan"]["chosen"] and status["model_name"] == REPO
        assert status["progress"]["total_bytes"] > status["progress"]["done_bytes"]
        assert status["progress"]["bytes_per_second"] > 0 and status["progress"]["eta_seconds"] > 0
        fetch = service.child("entrypoint.fetch")
        assert TOKEN not in secrets_of(service, [service.process.pid, fetch, service.child("app.web")])
        assert TOKEN not in Path(f"/proc/{service.child('app.web')}/environ").read_text()
        had = status["progress"]["done_bytes"]
        os.kill(fetch, signal.SIGKILL)
        wait_until(lambda: "it restarts and continues where it stopped" in service.log(), 30, "the death is named")
        downloading(service, had)
        hub.faults.bytes_per_second = None
        status = service.wait_for("ready")
        assert [path for path in hub.requests if (path.range or "").endswith("-") and path.range != "bytes=0-"]
        assert status["plan"]["model"]["path"].endswith(f"snapshots/{COMMIT}")
        code, answer = service.chat("你好", max_tokens=3)
        assert (code, answer["model"]) == (200, REPO)
        assert service.request("GET", f"/v1/models/{REPO}")[0] == 200
        assert "downloading zai-org/chatglm3-6b: " in service.log()
        assert TOKEN not in secrets_of(service, [service.child("app.engine")])
        assert TOKEN not in Path(f"/proc/{service.child('app.engine')}/environ").read_text()
    hub.requests.clear()
    for offline in ("0", "1"):
        done = run_entrypoint("plan", **settings, HF_HUB_OFFLINE=offline)
        assert done.returncode == 0 and REPO in done.stdout
    with running(tmp_path, **settings) as again:
        again.wait_for("loading")
    assert hub.requests == []


def test_kill_9_of_the_supervisor_ends_the_download(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.stall_after = AFTER_THE_HEADER
    with running(tmp_path, **settings_for(hub, tmp_path, GLM_MODEL=REPO)) as service:
        downloading(service, 0)
        fetch = service.child("entrypoint.fetch")
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not alive(fetch), 5, "the download is gone")


def test_sigterm_in_mid_download(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.stall_after = AFTER_THE_HEADER
    with running(tmp_path, **settings_for(hub, tmp_path, GLM_MODEL=REPO)) as service:
        downloading(service, 0)
        fetch = service.child("entrypoint.fetch")
        assert service.stop() == 0
        assert not alive(fetch)
        assert "Traceback" not in service.log()


def test_the_plan_says_what_it_waits_for_and_can_be_stopped(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.seconds_before_listing = 15
    with running(tmp_path, **settings_for(hub, tmp_path, GLM_MODEL=REPO)) as service:
        service.wait_for("planning")
        wait_until(lambda: service.status()["note"], 10, "a note")
        assert service.status()["note"]["en"] == f"Asking {hub.url} for {REPO}."
        assert service.request("GET", "/health/ready")[0] == 503
        assert service.stop(seconds=10) == 0
        assert "Traceback" not in service.log()


def test_a_model_that_is_not_there_is_explained_by_a_page_that_stays_up(hub: HubServer, tmp_path: Path) -> None:
    settings = settings_for(hub, tmp_path, GLM_MODEL="org/missing")
    with running(tmp_path, **settings) as service:
        status = service.wait_for("failed", 30)
        assert "has no model org/missing (HTTP 404), and there is no folder" in status["refusal"]["why"]["en"]
        assert status["refusal"]["env_line"] == "GLM_MODEL=zai-org/chatglm3-6b"
        assert service.request("GET", "/health/ready")[0] == 503
        assert service.request("GET", "/health/live")[0] == 200
    for command in ("plan", "serve"):
        done = run_entrypoint(
            command,
            **settings,
            GLM_ON_REFUSAL="exit",
            GLM_STATE_DIR=str(tmp_path / "other"),
            GLM_PORT=str(free_port()),
        )
        assert done.returncode == 3
        assert "GLM_MODEL=zai-org/chatglm3-6b" in done.stderr and "Traceback" not in done.stderr


def test_a_failed_download_is_refused_with_the_page_up(hub: HubServer, tmp_path: Path) -> None:
    shard = "model-00002-of-00003.safetensors"
    hub.faults.bodies[shard] = (FIXTURE / shard).read_bytes()[:-1] + b"x"
    with running(tmp_path, **settings_for(hub, tmp_path, GLM_MODEL=REPO)) as service:
        status = service.wait_for("failed", 60)
        assert status["refusal"]["why"]["code"] == "wrong_hash"
        assert status["refusal"]["why"]["values"]["file"] == shard
        assert status["attempts"] == []


def test_what_can_not_be_served_is_exit_2_as_from_a_folder(hub: HubServer, tmp_path: Path) -> None:
    body = b'{"model_type": "bert"}'
    hub.faults.bodies["config.json"], hub.sizes["config.json"] = body, len(body)
    settings = settings_for(hub, tmp_path, GLM_MODEL=REPO, GLM_STATE_DIR=str(tmp_path / "s"), GLM_PORT=str(free_port()))
    for command in ("plan", "serve"):
        done = run_entrypoint(command, **settings)
        assert done.returncode == 2, done.stderr
        assert "bert" in done.stderr and "Traceback" not in done.stderr


def test_the_default_is_served_where_the_hub_has_it(hub: HubServer, tmp_path: Path) -> None:
    with running(tmp_path, **settings_for(hub, tmp_path, BERTH_DEFAULT_MODEL=REPO)) as service:
        status = service.wait_for("loading")
        assert status["model_name"] == REPO
        assert (status["model_why"]["code"], status["model_why"]["values"]) == ("default_model", {"model": REPO})


def test_the_demo_in_its_place_where_the_hub_is_away(tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home"), "BERTH_DEFAULT_MODEL": REPO}
    with running(tmp_path, **settings) as service:
        status = service.wait_for("ready")
        assert status["model_name"] == "demo"
        why = status["model_why"]
        assert (why["code"], why["values"]["model"]) == ("demo_instead", REPO)
        assert "http://127.0.0.1:9 does not answer" in why["values"]["why"]["en"]
        assert status["model_why"]["en"] in service.log()
        code, answer = service.chat("What is Berth?", max_tokens=4)
        assert (code, answer["model"]) == (200, "demo")
        assert service.request("GET", "/v1/models")[1]["data"][0]["id"] == "demo"


def demo_takes_over(service: Service, seconds: float) -> dict[str, object]:
    wait_until(lambda: service.phase() and service.status()["model_name"] == "demo", seconds, "the demo takes over")
    return service.wait_for("loading") if service.phase() == "planning" else service.status()


@pytest.mark.slow
def test_the_demo_in_its_place_where_the_hub_is_slow(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.seconds_before_listing = 20
    began = time.monotonic()
    with running(tmp_path, **settings_for(hub, tmp_path, BERTH_DEFAULT_MODEL=REPO)) as service:
        why = str(demo_takes_over(service, 30)["model_why"])
        assert 3 < time.monotonic() - began < 20
        assert "does not answer (no data for 3 s)" in why


@pytest.mark.slow
def test_the_demo_in_its_place_where_it_does_not_fit(hub: HubServer, tmp_path: Path) -> None:
    hub.folders[REPO], hub.hash_nothing = sparse_checkpoint(tmp_path / "huge", replace(GLM4_9B, layers=2000)), True
    with running(tmp_path, **settings_for(hub, tmp_path, BERTH_DEFAULT_MODEL=REPO)) as service:
        why = str(demo_takes_over(service, 60)["model_why"])
        assert "GiB" in why and "does not fit" in why
        assert not HubCache.of(tmp_path / "home", REPO).folder.exists()
