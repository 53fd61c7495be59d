"""Starts the servers that are compared, one at a time: Berth, `transformers serve` and llama.cpp."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.serving.client import Target
from tests.bench.serving.environments import SCRIPTS, chat_ids, llama_weights
from tests.processes.service import clean_environment, free_port, running

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


@contextlib.contextmanager
def berth(checkpoint: Path, precision: str, cpu: Mapping[str, str]) -> Iterator[Started]:
    """The whole service, as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        settings = {
            "GLM_MODEL": str(checkpoint),
            "GLM_PRECISION": precision,
            "GLM_MAX_NUM_SEQS": str(SLOTS),
            "GLM_MAX_MODEL_LEN": str(CONTEXT),
            **cpu,
        }
        with running(Path(folder), **settings) as service:
            _wait(service.process, service.port, "/health/ready", lambda: service.log()[-4000:])
            ready = time.monotonic() - begin
            target = Target(service.port, checkpoint.name, {"stream_options": {"include_usage": True}})
            yield Started(target, ready)


@contextlib.contextmanager
def rival(
    environment: Path, checkpoint: Path, precision: str, cpu: Mapping[str, str], *, batching: bool
) -> Iterator[Started]:
    """`transformers serve`; with `batching` in its continuous batching mode."""
    port = free_port()
    command = [environment / "bin" / "transformers", "serve", checkpoint, "--device", "cpu", "--port", port]
    command += ["--dtype", "bfloat16"]
    if precision != "bf16":
        command += ["--quantization", {"int8": "bnb-8bit", "int4": "bnb-4bit"}[precision]]
    if batching:
        command += ["--continuous-batching", "--cb-num-blocks", BLOCKS, "--cb-max-batch-tokens", BATCH_TOKENS]
    with _listening(command, port, {"HF_HUB_OFFLINE": "1", **cpu}) as seconds:
        yield Started(Target(port, str(checkpoint)), seconds)


@contextlib.contextmanager
def llama(environment: Path, checkpoint: Path, form: str) -> Iterator[Started]:
    """llama.cpp's server, with weights in one of its forms."""
    weights, port = llama_weights(environment, checkpoint, form), free_port()
    threads = len(os.sched_getaffinity(0))
    command = [environment / "bin" / "python", SCRIPTS / "serve.py", weights, port, SLOTS, CONTEXT, threads]
    with _listening(command, port, {}) as seconds:
        yield Started(Target(port, weights.name, encode=chat_ids(checkpoint)), seconds)


@contextlib.contextmanager
def _listening(command: Sequence[object], port: int, settings: Mapping[str, str]) -> Iterator[float]:
    """A process until the end of the block; the seconds until it was ready."""
    with tempfile.NamedTemporaryFile("w+b") as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            env=clean_environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(process, port, "/health", lambda: Path(log.name).read_text(errors="replace")[-4000:])
            yield time.monotonic() - begin
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
