"""A small scripted stand-in for the service: the built client, a status that the test sets, answers that it wrote."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.contract.access import Session
from app.contract.codec import from_json, to_json
from app.contract.conversations import (
    ConversationChange,
    ConversationPage,
    Export,
    MessageError,
    NewConversation,
    NewTurn,
)
from app.contract.status import Status
from app.contract.wire import ToolCall
from tests.browser.support.stub_store import End, Piece, Step, Store
from tests.paths import TOP

DIST = TOP / "app" / "web" / "static" / "dist"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
CSP = "default-src 'self'"
"""Stricter than what the service sends."""
PAGE = 30


def text(content: str) -> Piece:
    """A piece of an answer."""
    return Piece(content)


def thought(content: str) -> Piece:
    """A piece of what the model thinks before it answers."""
    return Piece(reasoning=content)


def tool(name: str, arguments: str) -> Piece:
    """The model asks for a function."""
    return Piece(tool_calls=(ToolCall(f"call_{name}", name, arguments),))


def end(reason: str = "stop", tokens: int = 24) -> End:
    """The end of an answer, with its usage."""
    return End("length" if reason == "length" else "done", tokens)


def failed(code: str, message: str) -> End:
    """The answer can't be finished."""
    return End("failed", error=MessageError(code, message))


def error(message: str, code: str) -> dict[str, Any]:
    """The API's error shape."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


@dataclass
class Answer:
    """What the next turn gets."""

    steps: Iterable[Step] = ()
    status: int = 201
    body: Any = None


@dataclass
class Stub:
    """The state that the handlers share with the test."""

    prefix: str = ""
    status: Status | None = None
    """None: nobody answers, neither status nor chat."""
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the turns that were asked for."""
    store: Store = field(default_factory=Store)
    cut: threading.Event = field(default_factory=threading.Event)
    """While set, connections of streams break off."""
    bytewise: bool = False
    """Streams are sent a byte at a time."""
    lose_replies: int = 0
    """So many turns are taken in, and the connection lost before the reply."""

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
        self.store.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    shared: Stub

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the test speaks."""

    def do_GET(self) -> None:
        path, query = self._target()
        if path == "/api/status":
            if self.shared.status is not None:
                self._json(200, self.shared.status)
        elif path.startswith("/api/"):
            self._api("GET", path, query)
        else:
            self._file(path)

    def do_POST(self) -> None:
        self._api("POST", *self._target())

    def do_PATCH(self) -> None:
        self._api("PATCH", *self._target())

    def do_DELETE(self) -> None:
        self._api("DELETE", *self._target())

    def _target(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path.removeprefix(self.shared.prefix), {k: v[0] for k, v in parse_qs(parts.query).items()}

    def _file(self, path: str) -> None:
        file = DIST / ("index.html" if path == "/" else path.lstrip("/"))
        if not self.path.startswith(self.shared.prefix) or not file.is_file():
            self._answer(404, "text/plain", b"nothing here")
            return
        self._answer(200, TYPES[file.suffix], file.read_bytes())

    def _api(self, method: str, path: str, query: dict[str, str]) -> None:
        length = int(self.headers["Content-Length"] or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if self.shared.status is None:
            return
        try:
            self._route(method, path.removeprefix("/api/").split("/"), query, body)
        except KeyError:
            self._json(404, error("There is nothing.", "conversation_not_found"))

    def _route(self, method: str, path: list[str], query: dict[str, str], body: Any) -> None:
        match path:
            case ["session"]:
                self._json(200, Session(key_needed=False, signed_in=False, csrf_token=None))
            case ["conversations", *rest]:
                self._conversations(method, rest, query, body)
            case ["turns", id, "events"]:
                self._stream(id, int(query["after"]))
            case ["turns", id, "stop"]:
                self._json(200, self.shared.store.stop(id))
            case ["messages", id]:
                self.shared.store.delete_message(id)
                self._answer(204, "text/plain", b"")
            case _:
                raise KeyError(path)

    def _conversations(self, method: str, path: list[str], query: dict[str, str], body: Any) -> None:
        store = self.shared.store
        match method, path:
            case "GET", []:
                self._list(query)
            case "GET", ["export"]:
                self._json(200, Export(tuple(store.held.values())))
            case "POST", []:
                new = from_json(NewConversation, body)
                self._json(201, store.create(new.id, new.settings))
            case "POST", ["import"]:
                self._import(from_json(Export, body))
            case "POST", [id, "turns"]:
                self._turn(id, body)
            case _:
                self._conversation(method, path[0], path[1:], query, body)

    def _conversation(self, method: str, id: str, path: list[str], query: dict[str, str], body: Any) -> None:
        held = self.shared.store.held
        match method, path:
            case "GET", []:
                self._json(200, held[id])
            case "PATCH", []:
                self._json(200, self.shared.store.change(id, from_json(ConversationChange, body)))
            case "DELETE", []:
                del held[id]
                self._answer(204, "text/plain", b"")
            case "GET", ["export"] if query["format"] == "json":
                self._json(200, Export((held[id],)))
            case "GET", ["export"]:
                self._answer(200, "text/markdown", f"# {held[id].head.title}\n".encode())
            case _:
                raise KeyError(path)

    def _list(self, query: dict[str, str]) -> None:
        heads = self.shared.store.heads(query.get("search", ""))
        start = int(query.get("before", 0))
        end = start + PAGE
        self._json(200, ConversationPage(tuple(heads[start:end]), str(end) if end < len(heads) else None))

    def _import(self, export: Export) -> None:
        added = []
        for found in export.conversations:
            head = replace(found.head, id=str(uuid.uuid4()), updated_at=time.time())
            self.shared.store.held[head.id] = replace(found, head=head)
            added.append(head)
        self._json(201, ConversationPage(tuple(added), None))

    def _turn(self, id: str, body: Any) -> None:
        stub, turn = self.shared, from_json(NewTurn, body)
        stub.requests.append(body)
        known = [message for message in stub.store.held[id].messages if message.id == turn.answer_id]
        if known and not turn.continues:
            self._json(201, {"question": None, "answer": to_json(known[0])})
            return
        answer = stub.answers.pop(0)
        if answer.body is not None:
            self._json(answer.status, answer.body)
            return
        taken = stub.store.take(id, turn, answer.steps)
        if stub.lose_replies:
            stub.lose_replies -= 1
            return
        self._json(201, taken)

    def _stream(self, id: str, after: int) -> None:
        stub = self.shared
        if stub.cut.is_set():
            return
        self._answer(200, "text/event-stream", b"")
        try:
            for found in stub.store.events(id, after):
                if stub.cut.is_set():
                    return
                self._send(b": keep-alive\n\n" if found is None else _sse(found))
        except OSError:
            pass  # The reader has left.

    def _send(self, data: bytes) -> None:
        for part in [bytes([byte]) for byte in data] if self.shared.bytewise else [data]:
            self.wfile.write(part)
            self.wfile.flush()

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, "application/json", json.dumps(to_json(value)).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("Cache-Control", "no-store")
        if kind != "text/event-stream":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _sse(value: Any) -> bytes:
    return f"data: {json.dumps(to_json(value), ensure_ascii=False)}\n\n".encode()
