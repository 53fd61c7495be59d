"""The recipes of docs/hosting.md, each as far as Docker without GPUs can simulate the host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.container import lab
from tests.container.lab import Containers
from tests.paths import TOP

DEMO = TOP / "app" / "demo_model"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A data disk as hosts mount it: root's, writable for all."""
    folder = tmp_path / "disk"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_runpod_port_by_its_proxy_and_folders_on_the_volume(containers: Containers, disk: Path) -> None:
    env = {"PORT": "8000", "GLM_STATE_DIR": "/workspace/berth", "HF_HOME": "/workspace/huggingface"}
    service = containers.start(env={**env, "GLM_MODEL": "demo"}, options=["--volume", f"{disk}:/workspace"])
    service.wait_for("ready")
    assert service.get("/ping").status == 200
    assert (disk / "berth" / "config.json").exists()


def test_vast_replaces_the_entrypoint_and_runs_as_root(containers: Containers, disk: Path) -> None:
    service = containers.start(
        "-c", "cd /app && exec python -m entrypoint serve",
        env={"GLM_MODEL": "demo", "GLM_STATE_DIR": "/workspace/berth"},
        options=["--entrypoint", "bash", "--user", "0:0", "--workdir", "/root", "--volume", f"{disk}:/workspace"],
    )  # fmt: skip
    service.wait_for("ready")
    assert service.chat("hello", max_tokens=4).status == 200
    assert service.stop() < 8


def test_autodl_port_6006_and_the_data_disk(containers: Containers, disk: Path) -> None:
    data = "/root/autodl-tmp"
    env = {"GLM_MODEL": "demo", "GLM_PORT": "6006", "GLM_STATE_DIR": f"{data}/berth", "HF_HOME": f"{data}/huggingface"}
    options = ["--user", "0:0", "--volume", f"{disk}:{data}"]
    service = containers.start(env=env, options=options, container_port=6006)
    service.wait_for("ready")
    assert service.get("/").status == 200
    assert (disk / "berth" / "config.json").exists()


def test_sagemaker_starts_serve_pings_8080_and_invokes(containers: Containers, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO, model)
    options = ["--volume", f"{model}:/opt/ml/model:ro"]
    # Such a host lets in whom it has signed in itself, and can send no key.
    alone = {"GLM_API_KEY": "", "GLM_AUTH": "off", "BERTH_PUBLISHED_BIND": "127.0.0.1"}
    env = {"GLM_PORT": "8080", "GLM_MODEL": "/opt/ml/model", "GLM_STATE_DIR": "/tmp/berth"}
    service = containers.start("serve", env={**env, **alone}, options=options, container_port=8080)
    service.wait_for("ready")
    assert service.get("/ping").status == 200
    answer = service.post("/invocations", {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
    assert answer.status == 200
    assert answer.json()["object"] == "chat.completion"


def test_gpu_vm_compose_asks_for_all_gpus_and_requires_them(image: str, tmp_path: Path) -> None:
    gpu_file = TOP / "docker" / "compose.gpu.yaml"
    with lab.project(tmp_path, image, files=[gpu_file]) as project:
        glm = json.loads(project.compose("config", "--format", "json").stdout)["services"]["glm"]
        assert glm["environment"]["GLM_REQUIRE_GPU"] == "1"
        [wish] = glm["deploy"]["resources"]["reservations"]["devices"]
        assert (wish["driver"], wish["count"], wish["capabilities"]) == ("nvidia", -1, ["gpu"])
        # No GPU here: the engine refuses before anything of ours runs, in the words that the README explains.
        up = project.compose("up", "--detach", check=False)
        assert up.returncode != 0
        assert "could not select device driver" in up.stderr
