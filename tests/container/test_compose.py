"""`docker compose up` on a machine without a GPU: the service comes up healthy, answers, and is shut in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.container import lab
from tests.container.lab import Project, Service
from tests.paths import TOP


def test_healthy_service_answers_a_chat(service: Service) -> None:
    assert service.state()["Health"]["Status"] == "healthy"
    answer = service.chat("What is Berth?", max_tokens=16)
    assert answer.status == 200
    choice = answer.json()["choices"][0]
    assert choice["message"]["content"] and choice["finish_reason"] in ("stop", "length")
    assert answer.json()["usage"]["completion_tokens"] > 0


def test_status_tells_the_precision_and_why(service: Service) -> None:
    status = service.status()
    assert status["phase"] == "ready"
    assert status["precision"] in ("fp32", "bf16", "fp16", "int8", "int4")
    assert status["plan"]["chosen"]["reason"]["code"] == "highest_that_fits"
    assert status["model_name"] == "demo" and "GLM_MODEL" in status["model_why"]["en"]


def test_page_is_served(service: Service) -> None:
    page = service.get("/")
    assert page.status == 200 and "<script" in page.text


def test_it_runs_as_nobody_in_particular(service: Service) -> None:
    assert service.exec("id", "-u").stdout.strip() == str(lab.USER_ID)
    users = service.exec("sh", "-c", "cat /proc/[0-9]*/status | grep ^Uid:").stdout.split("\n")
    assert {line.split()[1] for line in users if line} == {str(lab.USER_ID)}


def test_root_file_system_is_read_only(service: Service) -> None:
    for folder in ("/app", "/opt/berth", "/usr/bin", "/host-models"):
        assert "Read-only file system" in service.exec("touch", f"{folder}/x", user="root", check=False).stderr
    for folder in ("/data", "/models", "/run/berth", "/tmp"):
        service.exec("sh", "-c", f"touch {folder}/x && rm {folder}/x")


def test_no_capability_and_no_new_privilege_is_left(service: Service) -> None:
    status = service.exec("cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"


def test_app_config_lies_in_the_state_volume(service: Service, project: Project) -> None:
    config = json.loads(service.exec("cat", "/data/config.json").stdout)
    assert config and all(name.isupper() for name in config)
    mounts = {mount["Destination"]: mount for mount in service.inspect()["Mounts"]}
    assert mounts["/data"]["Name"] == project.volume("state")
    assert mounts["/models"]["Name"] == project.volume("weights")
    assert not mounts["/host-models"]["RW"]


def test_plan_beside_the_running_service(service: Service, project: Project) -> None:
    table = project.compose("run", "--rm", "glm", "plan")
    assert "bf16" in table.stdout + table.stderr and "int4" in table.stdout + table.stderr
    plan = json.loads(project.compose("run", "--rm", "glm", "plan", "--json").stdout)
    assert plan["chosen"]
    assert service.status()["phase"] == "ready"


def test_wrong_setting_is_one_line(project: Project) -> None:
    for command in ("plan", "serve"):
        done = project.compose("run", "--rm", "--env", "GLM_PRECISION=int5", "glm", command, check=False)
        assert done.returncode == 2
        [line] = [line for line in done.stderr.splitlines() if line.startswith("berth:")]
        assert "GLM_PRECISION=int5" in line and "int4" in line
        assert "Traceback" not in done.stderr


def test_idle_service_stops_in_under_five_seconds(image: str, tmp_path: Path) -> None:
    with lab.project(tmp_path, image) as project:
        service = project.up()
        assert service.stop() < 5
        state = service.state()
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_memory_limit_is_what_the_plan_sees(image: str, tmp_path: Path) -> None:
    limit = tmp_path / "limit.yaml"
    limit.write_text("services:\n  glm:\n    mem_limit: 3g\n    memswap_limit: 3g\n", encoding="utf-8")
    with lab.project(tmp_path, image, files=[limit]) as project:
        table = project.compose("run", "--rm", "glm", "plan")
        assert "3.00 GiB" in table.stdout + table.stderr


@pytest.fixture
def host(engine: None, tmp_path: Path) -> Path:
    """A folder as a user has it: the Compose files and a `.env` made from `.env.example`."""
    shutil.copy(TOP / "compose.yaml", tmp_path)
    shutil.copytree(TOP / "docker", tmp_path / "docker")
    return tmp_path


def configuration(host: Path, **settings: str) -> dict[str, object]:
    """What `docker compose config` makes of the folder, with settings taken off their comment or added."""
    lines = (TOP / ".env.example").read_text(encoding="utf-8").splitlines()
    for name, value in settings.items():
        assert any(line.startswith(f"#{name}=") for line in lines), f"{name} is not in .env.example"
        lines = [f"{name}={value}" if line.startswith(f"#{name}=") else line for line in lines]
    (host / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "GLM_", "BERTH_"))}
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=host, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    service: dict[str, object] = json.loads(done.stdout)["services"]["glm"]
    return service


def test_gpu_hosts_start_by_two_lines_of_env(host: Path) -> None:
    service = configuration(
        host, COMPOSE_FILE="compose.yaml:docker/compose.gpu.yaml", COMPOSE_PATH_SEPARATOR=":", GLM_PORT="8123"
    )
    assert service["image"] == "berth:cuda"
    build, deploy = service["build"], service["deploy"]
    assert isinstance(build, dict) and isinstance(deploy, dict)
    assert build["args"] == {"TORCH": "cuda"} and build["context"] == str(host)
    assert deploy["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}
    ]
    environment = service["environment"]
    assert isinstance(environment, dict)
    assert environment["GLM_REQUIRE_GPU"] == "1"
    assert (environment["GLM_PORT"], environment["GLM_BIND"]) == ("8000", "0.0.0.0")
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]


def test_without_a_gpu_nothing_is_reserved(host: Path) -> None:
    service = configuration(host)
    assert service["image"] == "berth:cpu" and "deploy" not in service
    environment = service["environment"]
    assert isinstance(environment, dict) and "GLM_REQUIRE_GPU" not in environment


def test_what_env_says_of_the_host_is_published_and_mounted(host: Path) -> None:
    (host / "models").mkdir()
    service = configuration(
        host, GLM_PORT="8123", GLM_BIND="0.0.0.0", GLM_MODELS_DIR="./models", GLM_STATE_DIR="/elsewhere",
        HF_HOME="/elsewhere", GLM_PRECISION="int8", BERTH_MEMORY="6g",
    )  # fmt: skip
    ports, volumes, environment = service["ports"], service["volumes"], service["environment"]
    assert isinstance(ports, list) and isinstance(volumes, list) and isinstance(environment, dict)
    assert [(port["host_ip"], port["published"], port["target"]) for port in ports] == [("0.0.0.0", "8123", 8000)]
    assert str(host / "models") in [volume["source"] for volume in volumes if volume["target"] == "/host-models"]
    assert environment["GLM_PRECISION"] == "int8"
    assert (environment["GLM_STATE_DIR"], environment["HF_HOME"]) == ("/data", "/models")
    assert environment["GLM_MODELS_DIR"] == "/host-models"
    assert (environment["BERTH_PUBLISHED_BIND"], environment["BERTH_PUBLISHED_PORT"]) == ("0.0.0.0", "8123")
    assert int(str(service["mem_limit"])) == int(str(service["memswap_limit"])) == 6 << 30
