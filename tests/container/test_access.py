"""Who may come in, in containers: the key that is made at the first start, and what counts as published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.container import lab
from tests.container.lab import Containers
from tests.processes.service import wait_until

UNSET = {"GLM_API_KEY": ""}


def answers(url: str) -> bool:
    try:
        return lab.ask(f"{url}/health/live").status == 200
    except OSError:
        return False


def test_the_first_start_makes_a_key_and_the_logs_show_the_link(image: str, tmp_path: Path) -> None:
    with lab.project(tmp_path, image, env=UNSET) as project:
        service = project.up()
        key = service.exec("cat", "/data/api_key").stdout.strip()
        assert service.exec("stat", "-c", "%a %u", "/data/api_key").stdout.split() == ["600", str(lab.USER_ID)]
        logs = project.compose("logs", "glm").stdout
        assert re.findall(r"Open (\S+)", logs) == [f"http://127.0.0.1:8000/#key={key}"] * 2
        assert service.exec("python", "-m", "entrypoint", "link").stdout == f"http://127.0.0.1:8000/#key={key}\n"
        url = f"http://127.0.0.1:{service.port}"
        assert lab.ask(f"{url}/api/status").status == 401
        assert lab.ask(f"{url}/api/status", key=key).status == 200
        project.compose("down", "--timeout", "5")
        again = project.up()
        assert again.exec("cat", "/data/api_key").stdout.strip() == key, "kept with the state"


def test_a_key_from_a_secret_file(containers: Containers, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-key-that-lies-in-a-file\n")
    env = {**UNSET, "GLM_API_KEY_FILE": "/run/secrets/key", "GLM_MODEL": "demo"}
    service = containers.start(env=env, options=["--volume", f"{tmp_path / 'key'}:/run/secrets/key:ro"])
    url = f"http://127.0.0.1:{service.port}"
    wait_until(lambda: answers(url), 60, "the page is up")
    assert lab.ask(f"{url}/api/status", key="a-key-that-lies-in-a-file").status == 200
    assert lab.ask(f"{url}/api/status").status == 401
    assert "a-key-that-lies-in-a-file" not in service.logs() + str(service.inspect())


@pytest.mark.parametrize("published", [None, "0.0.0.0", "192.0.2.1"])
def test_without_a_key_only_where_the_port_is_published_to_this_machine(
    containers: Containers, published: str | None
) -> None:
    env = {**UNSET, "GLM_AUTH": "off"} | ({"BERTH_PUBLISHED_BIND": published} if published else {})
    service = containers.start(env=env)
    assert service.wait_for_exit() == 2
    [line] = service.logs().strip().splitlines()
    assert line.startswith("berth: GLM_AUTH=off: ") and "GLM_BIND=127.0.0.1" in line


def test_compose_publishes_to_this_machine_and_needs_no_key_then(image: str, tmp_path: Path) -> None:
    with lab.project(tmp_path, image, env={**UNSET, "GLM_AUTH": "off"}) as project:
        service = project.up()
        assert lab.ask(f"http://127.0.0.1:{service.port}/api/status", key="").status == 200
