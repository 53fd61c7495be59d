"""`python -m app.web` as a real process, as the supervisor starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from app.contract.codec import to_json, write_atomically
from app.contract.config import AppConfig
from app.contract.plan import Text
from app.contract.status import Phase, Status
from tests.paths import TOP

MODEL = "zai-org/glm-test"


@dataclass
class WebProcess:
    """The service under test, its files, and its descriptors' other ends."""

    process: subprocess.Popen[bytes]
    port: int
    lifeline: int
    folder: Path
    started: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "web.log").read_text()

    def get(self, path: str, timeout: float = 5.0) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
            return bytes(response.read())

    def wait_alive(self, seconds: float = 60.0) -> float:
        """Waits for /health/live; returns the seconds since the process was started."""
        while time.monotonic() < self.started + seconds and self.process.poll() is None:
            try:
                self.get("/health/live", 1.0)
                return time.monotonic() - self.started
            except OSError:
                time.sleep(0.01)
        raise AssertionError(f"not alive after {seconds} s:\n{self.log}")

    def worker(self) -> int:
        """The worker's process id."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def set_phase(self, phase: Phase, **more: object) -> None:
        write_status(self.folder, phase, **more)

    def cut_lifeline(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def stop(self) -> None:
        self.cut_lifeline()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def write_status(folder: Path, phase: Phase, **more: object) -> None:
    now = time.time()
    status = Status(
        phase,
        now,
        now,
        "0.1.0",
        MODEL,
        Text("set by you", "由你设置"),
        "http://127.0.0.1:8000",
        **more,  # type: ignore[arg-type]
    )
    write_atomically(folder / "status.json", status)


def write_config(folder: Path, socket_path: Path, database: Path | None = None, *, queue_limit: int = 8) -> Path:
    """The app config as the web needs it; returns its path."""
    file = str(database or folder / "berth.db")
    config = AppConfig(
        MODEL_NAME=MODEL,
        MODEL_PATH="models/test",
        STATUS_FILE=str(folder / "status.json"),
        ENGINE_SOCKET=str(socket_path),
        QUEUE_LIMIT=queue_limit,
        DATABASE=file,
    )
    path = folder / "config.json"
    path.write_text(json.dumps(to_json(config)))
    return path


def start_web(
    folder: Path, socket_path: Path, *, threads: int = 16, drain_seconds: int = 5, database: Path | None = None
) -> WebProcess:
    """Starts it on a free port, phase `ready`."""
    config = write_config(folder, socket_path, database)
    write_status(folder, "ready", precision="int8", max_model_len=8192, max_num_seqs=4)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    read_end, write_end = os.pipe()
    command = [
        *(sys.executable, "-m", "app.web", "--config", str(config)),
        *("--listen-fd", str(listener.fileno()), "--lifeline-fd", str(read_end), "--threads", str(threads)),
        *("--run-dir", str(folder), "--drain-seconds", str(drain_seconds)),
    ]
    started = time.monotonic()
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=TOP, stderr=log, stdout=log, pass_fds=[listener.fileno(), read_end],
            start_new_session=True,
        )  # fmt: skip
    port = listener.getsockname()[1]
    listener.close()
    os.close(read_end)
    return WebProcess(process, port, write_end, folder, started)


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int, seconds: float) -> float:
    """Waits until a process has ended; returns how long that took."""
    started = time.monotonic()
    while is_running(pid):
        assert time.monotonic() - started < seconds, f"process {pid} still runs after {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - started


def resident_mb(pid: int) -> float:
    """Resident memory as the kernel counts it, shared pages included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmRSS for {pid}")


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Short enough for a socket's path."""
    return tempfile.TemporaryDirectory(prefix="berth-web-", dir="/tmp")


def send_signal(pid: int, number: signal.Signals) -> None:
    """Only to processes that the tests have started."""
    os.kill(pid, number)
