"""Streams over HTTP that can be closed at any moment, streams for comparison, and the engine's statistics."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from app.contract.codec import dump_line, from_json
from app.contract.config import read_config
from app.contract.wire import Stats, StatsRequest
from tests.processes.service import Service, wait_until

CHAT = "/v1/chat/completions"
SECONDS = 60.0


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    """A greedy stream."""
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "stream": True, **fields}


def head(length: int, path: str = CHAT) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


@dataclass
class Events:
    """The received part of one stream: status, text, and the finish reason or an error's code."""

    data: bytes

    @property
    def status(self) -> int:
        return int(self.data.split(maxsplit=2)[1])

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in re.findall(rb"^data: (\{.*\})\r?$", self.data, re.MULTILINE)]

    @property
    def text(self) -> str:
        return "".join(c["delta"].get("content") or "" for o in self.objects for c in o.get("choices", []))

    @property
    def end(self) -> str | None:
        """A finish reason or an error's code."""
        for event in reversed(self.objects):
            if "error" in event:
                return str(event["error"]["code"])
            if event["choices"] and event["choices"][0]["finish_reason"]:
                return str(event["choices"][0]["finish_reason"])
        return None


class RawStream:
    """A request on a plain socket."""

    def __init__(self, service: Service, body: dict[str, Any], *, receive_bytes: int = 0, source: str = "") -> None:
        self.socket = socket.socket()
        if source:
            self.socket.bind((source, 0))
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(SECONDS)
        self.socket.connect(("127.0.0.1", service.port))
        data = json.dumps(body).encode()
        self.socket.sendall(head(len(data)) + data)
        self._received = b""

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def until_text(self) -> RawStream:
        """Waits for the first event with text."""
        while b'"content"' not in self._received:
            part = self.socket.recv(4096)
            assert part, f"ended before a text: {self._received!r}"
            self._received += part
        return self

    def all(self) -> Events:
        """Reads to the end."""
        while part := self.socket.recv(65536):
            self._received += part
        return Events(self._received)


def stream(service: Service, text: str, **fields: Any) -> Events:
    """Sends a request and reads its whole stream."""
    with RawStream(service, chat_body(text, **fields)) as raw:
        return raw.all()


def stats(service: Service) -> Stats:
    """The engine's own statistics."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(read_config(service.state_dir / "config.json").ENGINE_SOCKET)
        connection.sendall(dump_line(StatsRequest("test")))
        with connection.makefile("rb") as lines:
            reply = from_json(Stats, json.loads(lines.readline()), "stats")
    return reply


def settled(service: Service, running: int = 0, waiting: int = 0, seconds: float = SECONDS) -> float:
    """Waits until so many requests run and wait. Returns the seconds it took."""
    return wait_until(
        lambda: (now := stats(service)).running == running and now.waiting == waiting,
        seconds,
        f"{running} running, {waiting} waiting",
    )


@dataclass
class Witness:
    """Repeats the same requests while a test stresses the service: each answer must be the same as without stress.

    Make it before the stress, and use it as a context manager around it. A request is repeated if the queue is full.
    At least one whole answer to each text is compared.
    """

    service: Service
    texts: tuple[str, ...] = ("a bystander", "another one")
    fields: dict[str, Any] = field(default_factory=lambda: {"max_tokens": 150})

    def __post_init__(self) -> None:
        self._alone = {text: self._ask(text).text for text in self.texts}
        assert all(len(answer) > 50 for answer in self._alone.values())
        self._over = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._watch, args=(text,)) for text in self.texts]

    def __enter__(self) -> Witness:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        if kind is None:
            assert not self.wrong, self.wrong[0]
            assert self.answers >= len(self.texts)

    def _ask(self, text: str) -> Events:
        return stream(self.service, text, **self.fields)

    def _watch(self, text: str) -> None:
        while not self.wrong:
            try:
                events = self._ask(text)
                if events.status == 429:
                    continue
                if (events.status, events.end, events.text) != (200, "length", self._alone[text]):
                    self.wrong.append(f"{text!r} was {self._alone[text]!r} alone, now:\n{events.data!r}")
            except OSError as error:
                self.wrong.append(f"{text!r}: {error!r}")
            self.answers += 1
            if self._over.is_set():
                return


@contextlib.contextmanager
def busy(service: Service, count: int, **fields: Any) -> Iterator[list[RawStream]]:
    """Opens so many long streams and waits for their first text."""
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(RawStream(service, chat_body(f"long {n}", **fields))) for n in range(count)]
        yield [raw.until_text() for raw in raws]
