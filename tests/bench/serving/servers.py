"""Starts the servers that are compared, one at a time: Berth, and `transformers serve` in an environment of its own."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.serving.client import Target
from tests.processes.service import TOP, clean_environment, free_port, running
from tools.setup_env import torch_version

START_SECONDS = 300.0
STOP_SECONDS = 20.0
CONTEXT = 1024
SLOTS = 32
BLOCKS, BATCH_TOKENS = 64, 2048
"""Of the batching mode's cache (blocks of 256 tokens) and largest step; left to itself it takes the host's memory."""


@dataclass(frozen=True)
class Started:
    """A server that is ready."""

    target: Target
    ready_seconds: float
    """From the start of its process to the first 200 of its health route, weights in the page cache."""


def _version(package: str) -> str:
    for line in (TOP / "requirements" / "runtime.in").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{package}=="):
            return line.partition("==")[2]
    raise RuntimeError(f"requirements/runtime.in pins no {package}")


def rival_environment(cache: Path) -> Path:
    """The rival's environment, made once: the same versions of torch and transformers as Berth's."""
    torch, transformers = torch_version(TOP / "requirements"), _version("transformers")
    folder = cache / f"transformers-serve-{transformers}"
    done = folder / "finished"
    if not done.exists():
        print(f"making {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        # A wheel that pip's own configuration knows of comes first, as in tools/setup_env.py.
        cpu = f"torch=={torch}+cpu"
        if subprocess.run([*install, cpu], stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run([*install, "--index-url", "https://download.pytorch.org/whl/cpu", cpu], check=True)
        extra = f"bitsandbytes=={_version('bitsandbytes')}"
        subprocess.run([*install, f"transformers[serving]=={transformers}", extra], check=True)
        done.touch()
    return folder


@contextlib.contextmanager
def berth(checkpoint: Path, precision: str) -> Iterator[Started]:
    """The whole service, as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        settings = {
            "GLM_MODEL": str(checkpoint),
            "GLM_PRECISION": precision,
            "GLM_MAX_NUM_SEQS": str(SLOTS),
            "GLM_MAX_MODEL_LEN": str(CONTEXT),
        }
        with running(Path(folder), **settings) as service:
            _wait(service.process, service.port, "/health/ready", lambda: service.log()[-4000:])
            ready = time.monotonic() - begin
            target = Target(service.port, checkpoint.name, {"stream_options": {"include_usage": True}})
            yield Started(target, ready)


@contextlib.contextmanager
def rival(environment: Path, checkpoint: Path, precision: str, batching: bool) -> Iterator[Started]:
    """`transformers serve`; with `batching` in its continuous batching mode."""
    port = free_port()
    command = [environment / "bin" / "transformers", "serve", checkpoint, "--device", "cpu", "--port", str(port)]
    command += ["--dtype", "bfloat16"]
    if precision != "bf16":
        command += ["--quantization", {"int8": "bnb-8bit", "int4": "bnb-4bit"}[precision]]
    if batching:
        command += ["--continuous-batching", "--cb-num-blocks", str(BLOCKS)]
        command += ["--cb-max-batch-tokens", str(BATCH_TOKENS)]
    with tempfile.NamedTemporaryFile("w+b") as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            env=clean_environment(HF_HUB_OFFLINE="1"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(process, port, "/health", lambda: Path(log.name).read_text(errors="replace")[-4000:])
            yield Started(Target(port, str(checkpoint)), time.monotonic() - begin)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, log: Callable[[], str]) -> None:
    """Until the health route answers 200."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        connection.close()
        time.sleep(0.05)
    raise RuntimeError(f"the server did not become ready:\n{log()}")
