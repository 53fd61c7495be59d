"""The Flask app for the web's unit tests: alone, or with the fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.web.factory import create_app
from tests.conversations import Chats, over_flask
from tests.processes.web import write_config, write_status
from tests.unit.web.support import Web, running_web


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The app in phase `ready`, its files in `tmp_path`. There is no engine."""
    write_status(tmp_path, "ready", precision="int4")
    return create_app(write_config(tmp_path, tmp_path / "engine.sock"))


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


@pytest.fixture
def web() -> Iterator[Web]:
    """The app with an engine."""
    with running_web() as web:
        yield web


@pytest.fixture(scope="module")
def module_web() -> Iterator[Web]:
    """The same for all tests of a module, such as those with many examples."""
    with running_web() as web:
        yield web


@pytest.fixture
def chats(web: Web) -> Chats:
    """The conversations' API of `web`."""
    return Chats(over_flask(web.client))
