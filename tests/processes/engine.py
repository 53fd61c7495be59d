"""The engine as the supervisor starts it: a real process, its pipes, its socket."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from app.contract.codec import dump_line, from_json, write_atomically
from app.contract.config import AppConfig, EngineConfig
from app.contract.plan import CPU, Dtype, Precision, gpus_of
from app.contract.status import Beat, EngineDown, EngineEvent, Loading, ProofStep, Proving, Ready
from app.contract.wire import ChatRequest, Failed, Finished, Message, Reply, SamplingParams, Stats, StatsRequest
from entrypoint.machine.cgroup import cpu_count
from tests.paths import TOP
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

START_SECONDS = 100
REPLY_SECONDS = 60
PLANNED_BYTES = 1 << 30
TINY = CheckpointShape(
    hidden=128, layers=2, heads=4, kv_heads=2, head_dim=32, intermediate=256, vocab=600, context=512, dtype="float32"
)
EVENTS: dict[str, type[EngineEvent]] = {
    **{"loading": Loading, "proving": Proving, "proof_step": ProofStep, "ready": Ready},
    **{"beat": Beat, "down": EngineDown},
}

E = TypeVar("E", bound=EngineEvent)


def make_tiny(folder: Path) -> Path:
    """A random glm4 checkpoint of half a million parameters in fp32."""
    make_checkpoint(folder, TINY)
    return folder


@dataclass
class EngineConnection:
    """One connection of the engine's socket; `replies` reads until the end."""

    connection: socket.socket

    def replies(self) -> Iterator[Reply]:
        with self.connection.makefile("rb") as lines:
            for line in lines:
                yield from_json(Reply, json.loads(line), "reply")  # type: ignore[arg-type]

    def close(self) -> None:
        self.connection.close()


class EngineProcess:
    """A context manager; it always ends the process."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        precision: Precision = "fp32",
        *,
        dtype: Dtype = "float32",
        max_model_len: int = 512,
        queue_limit: int = 2,
        prefill_chunk: int = 64,
        max_num_seqs: int = 1,
        devices: tuple[str, ...] = (CPU,),
        device_map: dict[str, str] | None = None,
    ) -> None:
        self.socket_path = folder / "engine.sock"
        modules = device_map or {"": "cuda:0" if gpus_of(devices) else CPU}
        engine = EngineConfig(
            precision=precision,
            compute_dtype=dtype,
            devices=devices,
            device_map=modules,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            prefill_chunk=prefill_chunk,
            planned_bytes=PLANNED_BYTES,
            cpu_threads=cpu_count(),
        )
        status = str(folder / "status.json")
        config = AppConfig("tiny", str(model), status, str(self.socket_path), queue_limit, ENGINE=engine)
        write_atomically(folder / "config.json", config)
        self._log = (folder / "engine.log").open("wb+")
        self._events, events_end = os.pipe()
        lifeline_end, self._lifeline = os.pipe()
        command = [sys.executable, "-m", "app.engine", "--config", str(folder / "config.json")]
        command += ["--events-fd", str(events_end), "--lifeline-fd", str(lifeline_end)]
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus_of(devices))} if gpus_of(devices) else {}
        self.process = subprocess.Popen(
            command, cwd=TOP, env=os.environ | visible, stderr=self._log, pass_fds=(events_end, lifeline_end)
        )
        os.close(events_end)
        os.close(lifeline_end)
        self._buffer = b""
        self.received: list[EngineEvent] = []
        """Every event so far."""

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.cut_lifeline()
        os.close(self._events)
        self._log.close()

    def event(self) -> EngineEvent | None:
        """The next event; None at the end."""
        deadline = time.monotonic() + START_SECONDS
        while b"\n" not in self._buffer:
            assert select.select([self._events], [], [], deadline - time.monotonic())[0], f"no event:\n{self.log()}"
            data = os.read(self._events, 65536)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        fields: dict[str, Any] = json.loads(line)
        self.received.append(from_json(EVENTS[fields["type"]], fields, "event"))
        return self.received[-1]

    def until(self, kind: type[E]) -> E:
        """Reads events up to the first of this kind."""
        while (event := self.event()) is not None:
            if isinstance(event, kind):
                return event
        raise AssertionError(f"the engine ended without {kind.__name__}:\n{self.log()}")

    def log(self) -> str:
        """What the engine logged so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(REPLY_SECONDS)
        connection.connect(str(self.socket_path))
        return connection

    def ask(self, text: str = "hello", **fields: Any) -> EngineConnection:
        """Sends a greedy request; `fields` are ChatRequest's."""
        request: dict[str, Any] = {
            "messages": (Message("user", text),),
            "sampling": SamplingParams(temperature=0.0),
        } | fields
        connection = self.connect()
        connection.sendall(dump_line(ChatRequest("test", **request)))
        return EngineConnection(connection)

    def answer(self, text: str = "hello", **fields: Any) -> list[Reply]:
        """Every reply to a request."""
        with contextlib.closing(self.ask(text, **fields)) as conversation:
            return list(conversation.replies())

    def stats(self) -> Stats:
        """The engine's counters."""
        (reply,) = self.send_line(dump_line(StatsRequest("stats")))
        assert isinstance(reply, Stats)
        return reply

    def send_line(self, line: bytes) -> list[Reply]:
        """Every reply to a line, which need not be a valid request."""
        with contextlib.closing(EngineConnection(self.connect())) as conversation:
            with contextlib.suppress(BrokenPipeError):
                conversation.connection.sendall(line)
            return list(conversation.replies())

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def cut_lifeline(self) -> None:
        """Closes the lifeline, as the supervisor's death does."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def last_of(replies: list[Reply]) -> Finished | Failed:
    """The one terminal reply, which must be the last."""
    ends = [reply for reply in replies if isinstance(reply, (Finished, Failed))]
    assert len(ends) == 1
    assert replies[-1] is ends[0]
    return ends[0]
