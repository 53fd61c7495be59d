"""The Flask app without gunicorn, with the fake engine on a real socket behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from app.web.factory import create_app
from tests.processes.fake_engine import FakeEngine
from tests.processes.web import temporary_folder, write_config, write_status

CHAT = "/v1/chat/completions"


@contextmanager
def web_client(*, threads: int = 64, queue_limit: int = 8) -> Iterator[tuple[FlaskClient, FakeEngine]]:
    """A client, phase `ready`, and the engine that it reaches."""
    with temporary_folder() as name:
        folder = Path(name)
        config = write_config(folder, folder / "engine.sock", queue_limit=queue_limit)
        write_status(folder, "ready", precision="int8", max_model_len=8192)
        app = create_app(config, threads=threads)
        with FakeEngine(folder / "engine.sock") as engine, app.test_client() as client:
            yield client, engine
        app.extensions["berth"].storage.close()


def data_events(body: bytes) -> list[Any]:
    """The events of a stream: each must be UTF-8 and JSON by itself, `[DONE]` the last."""
    events = [part.removeprefix(b"data: ") for part in body.split(b"\n\n") if part.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    return [json.loads(event.decode("utf-8")) for event in events[:-1]]
