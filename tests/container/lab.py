"""Real containers for tests: run one, ask it, look inside, and remove it by name."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.paths import TOP

IMAGE = "berth:test"
OVERLAY = TOP.parent / "shared" / "docker-lab" / "compose.lab.yaml"
USER_ID = 10001
KEY = "a-key-that-all-container-tests-share"

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def docker(*args: str | Path, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs a docker command; one that fails is reported with what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "GLM_", "BERTH_"))}
    done = subprocess.run(
        ["docker", *map(str, args)], capture_output=True, text=True, timeout=timeout, env=env, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def engine_missing() -> str | None:
    """Why there is no Docker engine, or None where one answers."""
    try:
        done = docker("info", "--format", "{{.ServerVersion}}", check=False, timeout=20)
    except FileNotFoundError:
        return "no docker command here"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return None if done.returncode == 0 else f"no Docker engine answers: {done.stderr.strip()[:200]}"


def overlay() -> list[Path]:
    """The Compose file for machines that can pull nothing, where this is one and the folder it names is there."""
    if not OVERLAY.exists():
        return []
    wheels = re.search(r"^\s+wheels:\s*(\S+)$", OVERLAY.read_text(encoding="utf-8"), re.MULTILINE)
    return [OVERLAY] if wheels and Path(wheels[1]).exists() else []


def image_id(tag: str) -> str | None:
    found = docker("image", "inspect", "--format", "{{.Id}}", tag, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unique(name: str) -> str:
    return f"berth-test-{name}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def ask(url: str, body: object = None, timeout: float = 60, key: str = KEY) -> Answer:
    """GET, or POST where there is a body, with the key. Any HTTP status is an answer; OSError: nobody answered."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}"} | ({"Content-Type": "application/json"} if data else {})
    request = urllib.request.Request(url, data, headers)
    try:
        with _NO_PROXY.open(request, timeout=timeout) as response:
            return Answer(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode())


@dataclass(frozen=True)
class Service:
    """A container with a service in it, asked by its published port."""

    name: str
    port: int

    def get(self, path: str) -> Answer:
        return ask(f"http://127.0.0.1:{self.port}{path}")

    def post(self, path: str, body: object) -> Answer:
        return ask(f"http://127.0.0.1:{self.port}{path}", body)

    def chat(self, text: str, **fields: object) -> Answer:
        messages = [{"role": "user", "content": text}]
        body = {"model": self.get("/v1/models").json()["data"][0]["id"], "messages": messages, **fields}
        return self.post("/v1/chat/completions", body)

    def status(self) -> dict[str, Any]:
        """/api/status, or nothing where the web service does not answer yet."""
        try:
            answer: dict[str, Any] = self.get("/api/status").json()
        except (OSError, ValueError):
            return {}
        return answer

    def wait_for(self, *phases: str, seconds: float = 120) -> dict[str, Any]:
        """The status once it is in one of the phases; fails at once when the container has ended."""
        end = time.monotonic() + seconds
        status: dict[str, Any] = {}
        while time.monotonic() < end:
            status = self.status() or status
            if status.get("phase") in phases:
                return status
            if self.state()["Status"] == "exited":
                raise AssertionError(f"{self.name} ended: {self.state()}\n{self.logs()}")
            time.sleep(0.2)
        raise AssertionError(f"{self.name} is not {' or '.join(phases)} in {seconds:.0f} s: {status}\n{self.logs()}")

    def exec(self, *argv: str, user: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("exec", *(["--user", user] if user else []), self.name, *argv, check=check)

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", self.name).stdout)[0]
        return found

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.inspect()["State"]
        return state

    def logs(self) -> str:
        """What it wrote on stdout and stderr, in that order."""
        done = docker("logs", self.name, check=False)
        return done.stdout + done.stderr

    def stop(self) -> float:
        """Stops it as `docker stop` does; seconds it took."""
        start = time.monotonic()
        docker("stop", self.name)
        return time.monotonic() - start

    def wait_for_exit(self, seconds: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        return int(docker("wait", self.name, timeout=seconds).stdout)


@dataclass
class Containers:
    """Starts containers by `docker run` and removes each by its name."""

    image: str
    names: list[str] = field(default_factory=list)

    def start(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        container_port: int = 8000,
        memory: str | None = None,
    ) -> Service:
        """`docker run --detach` with nothing that Compose would add; `memory` without swap, as compose.yaml has it."""
        name, port = unique("run"), free_port()
        args = ["--detach", "--name", name, "--publish", f"127.0.0.1:{port}:{container_port}"]
        for key, value in {"GLM_API_KEY": KEY, **(env or {})}.items():
            args += ["--env", f"{key}={value}"]
        if memory:
            args += ["--memory", memory, "--memory-swap", memory]
        self.names.append(name)
        docker("run", *args, *options, self.image, *command)
        return Service(name, port)

    def remove_all(self) -> None:
        for name in self.names:
            docker("rm", "--force", "--volumes", name, check=False)


@dataclass
class Project:
    """compose.yaml under a project name of its own, with the test's image and free port; `.env` is not read."""

    name: str
    port: int
    override: Path
    files: list[Path]

    def compose(self, *args: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        files = [arg for file in [TOP / "compose.yaml", *self.files, self.override] for arg in ("--file", str(file))]
        base = ["compose", "--project-name", self.name, "--env-file", os.devnull, *files]
        return docker(*base, *args, check=check, timeout=timeout)

    def up(self) -> Service:
        """`docker compose up --wait`: returns once the service is healthy."""
        up = self.compose("up", "--wait", "--detach", check=False)
        service = Service(f"{self.name}-glm-1", self.port)
        assert up.returncode == 0, f"{up.stderr}\n{service.logs()}"
        return service

    def volume(self, name: str) -> str:
        return f"{self.name}_{name}"


@contextlib.contextmanager
def project(
    folder: Path, image: str, env: Mapping[str, str] | None = None, files: Sequence[Path] = ()
) -> Iterator[Project]:
    """A Compose project that is taken down with its volumes; `env` adds to the container's environment."""
    name, port = unique("compose"), free_port()
    override = folder / f"{name}.yaml"
    lines = [
        "services:",
        "  glm:",
        f"    image: {image}",
        "    pull_policy: never",
        "    env_file: !reset []",
        f'    ports: !override ["127.0.0.1:{port}:8000"]',
        f"    environment: {json.dumps({'GLM_API_KEY': KEY, **(env or {})})}",
    ]
    override.write_text("\n".join(lines) + "\n", encoding="utf-8")
    project = Project(name, port, override, list(files))
    try:
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5", check=False)
