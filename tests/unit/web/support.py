"""The Flask app without gunicorn, with the fake engine on a real socket behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.contract.codec import to_json
from app.contract.wire import Reply
from app.web.factory import create_app
from tests.exposition import Exposition
from tests.processes.fake_engine import FakeEngine
from tests.processes.web import temporary_folder, write_config, write_status

CHAT = "/v1/chat/completions"


@dataclass
class Web:
    """The app's test client, the engine that it reaches, and the folder with its files."""

    client: FlaskClient
    engine: FakeEngine
    folder: Path

    @property
    def app(self) -> Flask:
        return self.client.application

    def chat(self, text: str, **more: Any) -> int:
        """Sends one message and reads the whole answer. Returns the status."""
        body = {"messages": [{"role": "user", "content": text}], **more}
        with self.client.post(CHAT, json=body) as answer:
            assert answer.data
            return answer.status_code

    def play(self, *replies: Reply, **more: Any) -> int:
        """Sends a message that the engine answers with these replies."""
        return self.chat(f"script {json.dumps([to_json(reply) for reply in replies])}", **more)

    def send(self, method: str, path: str, **more: Any) -> TestResponse:
        """Sends a request. The response is read to its end and closed, as a server does."""
        with self.client.open(path, method=method, **more) as answer:
            assert answer.data is not None
            return answer

    def scrape(self) -> Exposition:
        """The metrics."""
        answer = self.send("GET", "/metrics")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
        assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
        return Exposition(answer.text)


@contextmanager
def running_web(*, threads: int = 64, queue_limit: int = 8) -> Iterator[Web]:
    """The app in phase `ready`, and an engine."""
    with temporary_folder() as name:
        folder = Path(name)
        app = create_app(write_config(folder, folder / "engine.sock", queue_limit=queue_limit), threads=threads)
        write_status(folder, "ready", precision="int8", max_model_len=8192)
        with FakeEngine(folder / "engine.sock") as engine, app.test_client() as client:
            yield Web(client, engine, folder)
        app.extensions["berth"].lazy_store.close()


def data_events(body: bytes) -> list[Any]:
    """The events of a stream: each must be UTF-8 and JSON by itself, `[DONE]` the last."""
    events = [part.removeprefix(b"data: ") for part in body.split(b"\n\n") if part.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    return [json.loads(event.decode("utf-8")) for event in events[:-1]]
