"""Whatever goes wrong inside the app: one error shape for programs, words for browsers, nothing of the inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort
from flask.testing import FlaskClient
from werkzeug.exceptions import default_exceptions

from app.web.access.rules import RULES
from app.web.factory import create_app
from app.web.store import errors as store
from tests.processes.web import temporary_folder, write_config, write_status

SHAPE = {"message", "type", "param", "code"}
STORE_ERRORS = [
    (store.InvalidFieldError, 400, None),
    (store.NotFoundError, 404, None),
    (store.ConflictError, 409, None),
    (store.UnavailableError, 503, "5"),
    (store.FullError, 507, "30"),
]


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with temporary_folder() as name, pytest.MonkeyPatch.context() as patch:
        write_status(Path(name), "ready")
        app = create_app(write_config(Path(name), Path(name) / "engine.sock"))
        for prefix in ("v1", "page"):
            patch.setitem(RULES, f"fail_{prefix}", "public")  # type: ignore[arg-type]
            app.add_url_rule(f"/{prefix}/fail/<int:status>", f"fail_{prefix}", fail)
        yield app


def fail(status: int) -> Response:
    if status == 0:
        raise RuntimeError("the inside")
    if status <= len(STORE_ERRORS):
        error, _, _ = STORE_ERRORS[status - 1]
        raise error("m", "a_code", "a_field")
    abort(status)


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


@pytest.mark.parametrize("status", sorted(default_exceptions))
def test_every_status_that_flask_can_raise_has_the_shape(client: FlaskClient, status: int) -> None:
    answer = client.get(f"/v1/fail/{status}")
    error = answer.get_json()["error"]
    assert (answer.status_code, set(error), answer.mimetype) == (status, SHAPE, "application/json")
    kinds = {429: "rate_limit_error"}
    assert error["type"] == kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    assert error["message"] and error["code"] and error["code"] == error["code"].lower()
    assert answer.headers["x-request-id"] and answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("status", [404, 413, 500])
def test_a_browser_gets_words(client: FlaskClient, status: int) -> None:
    answer = client.get(f"/page/fail/{status}")
    assert (answer.status_code, answer.mimetype) == (status, "text/plain") and str(status) in answer.text


@pytest.mark.parametrize("prefix", ["v1", "page"])
def test_what_nobody_foresaw_tells_nothing_of_the_inside(client: FlaskClient, prefix: str) -> None:
    answer = client.get(f"/{prefix}/fail/0")
    assert answer.status_code == 500 and "inside" not in answer.text


PROGRAMS: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/v1/chat/completions", {"data": b"{", "content_type": "application/json"}, 400),
    ("POST", "/api/session", {"data": b"[]", "content_type": "application/json"}, 400),
    ("GET", "/v1/nothing", {}, 404),
    ("GET", "/api/conversations/0b0e1c9e-7c1f-4f0e-9d0c-2a3b4c5d6e7f/nothing", {}, 404),
    ("GET", "/metrics/nothing", {}, 404),
    ("DELETE", "/metrics", {}, 405),
    ("PUT", "/openapi.json", {}, 405),
    ("GET", "/detokenize", {}, 405),
    ("POST", "/health/live", {}, 405),
    ("POST", "/tokenize", {"data": b"x" * 5_000_000, "content_type": "application/json"}, 413),
    ("POST", "/invocations", {"data": b"{}", "content_type": "text/plain"}, 415),
    ("POST", "/tokenize", {"json": {"prompt": "x"}}, 503),
]


@pytest.mark.parametrize(("method", "path", "more", "status"), PROGRAMS)
def test_what_programs_meet(client: FlaskClient, method: str, path: str, more: dict[str, Any], status: int) -> None:
    answer = client.open(path, method=method, **more)
    assert (answer.status_code, set(answer.get_json()["error"])) == (status, SHAPE)


def test_head_of_an_error_has_no_body(client: FlaskClient) -> None:
    answer = client.head("/v1/nothing")
    assert (answer.status_code, answer.data) == (404, b"")


def test_every_error_of_the_store_is_listed() -> None:
    assert {error for error, _, _ in STORE_ERRORS} == set(store.StoreError.__subclasses__())


@pytest.mark.parametrize("number", range(1, len(STORE_ERRORS) + 1))
def test_an_error_of_the_store_has_its_status(client: FlaskClient, number: int) -> None:
    _, status, retry = STORE_ERRORS[number - 1]
    answer = client.get(f"/v1/fail/{number}")
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry)
    error = answer.get_json()["error"]
    assert (error["code"], error["param"], error["message"]) == ("a_code", "a_field", "m")
