"""The whole service as a user starts it: `python -m entrypoint serve`, real processes and sockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.paths import TOP

SERVE = ("-m", "entrypoint", "serve")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**settings: str) -> dict[str, str]:
    ours = ("GLM_", "HF_", "BERTH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours) and key != "PORT"}
    return {**kept, "GLM_AUTH": "off", **settings}


def run_entrypoint(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """One command to its end, away from any `.env`."""
    return subprocess.run(
        [sys.executable, "-m", "entrypoint", *arguments],
        env={**clean_environment(**settings), "PYTHONPATH": str(TOP)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [found for child in children for found in (int(child), *descendants(int(child)))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Any, seconds: float, what: str) -> float:
    """Waits for a condition; returns the seconds it took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - start


@dataclass
class Service:
    """A started service."""

    process: subprocess.Popen[bytes]
    port: int
    state_dir: Path
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def request(self, method: str, path: str, body: Any = None, timeout: float = 60) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        code, status = self.request("GET", "/api/status", timeout=5)
        assert code == 200
        return dict(status)

    def phase(self) -> str | None:
        try:
            return str(self.status()["phase"])
        except (OSError, http.client.HTTPException):
            return None

    def wait_for(self, phase: str, seconds: float = 90) -> dict[str, Any]:
        def there() -> bool:
            assert self.process.poll() is None, f"the service ended:\n{self.log()[-4000:]}"
            return self.phase() == phase

        try:
            wait_until(there, seconds, phase)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from error
        return self.status()

    def chat(self, text: str, **fields: Any) -> tuple[int, Any]:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
        return self.request("POST", "/v1/chat/completions", body)

    def child(self, module: str) -> int:
        """The process id of the child that runs a module."""
        for pid in descendants(self.process.pid):
            if f"-m\0{module}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        raise AssertionError(f"no {module} runs")

    def web_worker(self) -> int:
        return descendants(self.child("app.web"))[0]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=seconds)


@contextmanager
def running(
    folder: Path, python: str | Path = sys.executable, *, command: Sequence[str] = SERVE, **settings: str
) -> Iterator[Service]:
    """Starts a service with its state below `folder`, and leaves no process behind."""
    port = int(settings.pop("GLM_PORT", "0")) or free_port()
    state = Path(settings.pop("GLM_STATE_DIR", str(folder / "state")))
    temporary = settings.pop("TMPDIR", str(folder))
    log: IO[bytes]
    with (folder / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [python, *command],
            env={
                **clean_environment(GLM_PORT=str(port), GLM_STATE_DIR=str(state), **settings),
                "PYTHONPATH": str(TOP),
                "TMPDIR": temporary,
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    service = Service(process, port, state, folder / "service.log")
    children: list[int] = []
    try:
        yield service
    finally:
        if process.poll() is None:
            children = descendants(process.pid)
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        wait_until(lambda: not any(alive(pid) for pid in children), 10, "children gone")
