"""A small scripted stand-in for the service: the built client, a status that the test sets, answers that it wrote."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from app.contract.codec import to_json
from app.contract.status import Status

DIST = Path(__file__).resolve().parents[2] / "app" / "web" / "static" / "dist"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
CSP = "default-src 'self'"
"""Stricter than what the service sends."""

Step = bytes | float | threading.Event
"""What an answer is made of: bytes to send, seconds to wait, something to wait for."""


def event(value: Any) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def text(content: str) -> bytes:
    """A piece of an answer."""
    return event({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]})


def thought(content: str) -> bytes:
    """A piece of what the model thinks before it answers."""
    return event({"choices": [{"index": 0, "delta": {"reasoning_content": content}, "finish_reason": None}]})


def end(reason: str = "stop", tokens: int = 24) -> bytes:
    """The end of an answer, with its usage."""
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": None})
    return last + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def error(message: str, code: str) -> dict[str, Any]:
    """OpenAI's error shape."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


def bytewise(data: bytes) -> list[Step]:
    """Every byte a chunk of its own."""
    return [bytes([byte]) for byte in data]


@dataclass
class Answer:
    """What the next chat request gets."""

    steps: Iterable[Step] = ()
    status: int = 200
    body: Any = None


@dataclass
class Stub:
    """The state that the handlers share with the test."""

    prefix: str = ""
    status: Status | None = None
    """None: nobody answers, neither status nor chat."""
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """A reader has closed its connection in mid-answer."""

    def __post_init__(self) -> None:
        stub = self

        class Handler(_Handler):
            shared = stub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._server.server_port}{self.prefix}/"

    def say(self, *steps: Step) -> None:
        """Queues an answer."""
        self.answers.append(Answer(steps))

    def refuse(self, status: int, body: Any) -> None:
        """Queues a refusal."""
        self.answers.append(Answer(status=status, body=body))

    def close(self) -> None:
        """Ends the server and waits for it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    shared: Stub

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the test speaks."""

    def do_GET(self) -> None:
        path = self.path.removeprefix(self.shared.prefix)
        if path == "/api/status":
            status = self.shared.status
            if status is not None:
                self._answer(200, "application/json", json.dumps(to_json(status)).encode())
            return
        if path == "/api/session":
            body = {"key_needed": False, "signed_in": False, "csrf_token": None}
            self._answer(200, "application/json", json.dumps(body).encode())
            return
        name = "index.html" if path == "/" else path.lstrip("/")
        file = DIST / name
        if not self.path.startswith(self.shared.prefix) or not file.is_file():
            self._answer(404, "text/plain", b"nothing here")
            return
        self._answer(200, TYPES[file.suffix], file.read_bytes())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.shared.status is None:
            return
        self.shared.requests.append(body)
        answer = self.shared.answers.pop(0)
        if answer.body is not None:
            self._answer(answer.status, "application/json", json.dumps(answer.body).encode())
            return
        self._answer(200, "text/event-stream", b"")
        try:
            self._stream(answer.steps)
        except OSError:
            self.shared.left.set()

    def _stream(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self.wfile.write(step)
            elif isinstance(step, float):
                time.sleep(step)
            else:
                self._heartbeat_until(step)

    def _heartbeat_until(self, done: threading.Event) -> None:
        deadline = time.monotonic() + 20
        while not done.wait(0.05) and time.monotonic() < deadline:
            self.wfile.write(b": keep-alive\n\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("Cache-Control", "no-store")
        if kind != "text/event-stream":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
