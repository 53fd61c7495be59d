"""`docker compose run --rm glm doctor`, where only a container can act the host: a memory limit, the image's user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.container import lab
from tests.container.lab import Containers, docker


def test_a_limit_that_is_too_small(containers: Containers) -> None:
    limit = 400 << 20
    service = containers.start("doctor", "--json", env={"HF_HUB_OFFLINE": "1"}, memory="400m")
    assert service.wait_for_exit(150) == 2
    checks = {check["name"]: check for check in json.loads(docker("logs", service.name).stdout)["checks"]}
    memory, plan = checks["memory"], checks["plan"]
    assert memory["finding"]["values"]["limit_bytes"] == limit
    assert (memory["verdict"], memory["remedy"]["code"]) == ("warn", "raise_memory_limit")
    assert "BERTH_MEMORY" in memory["remedy"]["en"]
    assert (plan["verdict"], plan["finding"]["code"]) == ("fail", "model_too_large")
    assert plan["finding"]["values"]["limit"] == {"code": "container_limit", "limit_bytes": limit}


def test_a_volume_of_roots(containers: Containers, tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir(mode=0o755)
    if folder.stat().st_uid != 0:
        pytest.skip("only root can make a folder that is root's")
    service = containers.start("doctor", env={"HF_HUB_OFFLINE": "1"}, options=["--volume", f"{folder}:/data"])
    assert service.wait_for_exit(150) == 2
    assert f"/data belongs to root (uid 0), Berth runs as uid {lab.USER_ID}" in service.logs()


def test_by_compose(project: lab.Project) -> None:
    done = project.compose("run", "--rm", "glm", "doctor", check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    for name in ("driver", "memory", "GLM_STATE_DIR", "HF_HOME", "run directory", "port", "bitsandbytes", "plan"):
        assert f"pass  {name} " in done.stdout, done.stdout
