"""The Flask app without gunicorn: routes, error shape, strict JSON, status, headers, the page built and not built."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.contract.codec import from_json, to_json, write_atomically
from app.contract.plan import Plan, Refusal, Text
from app.contract.status import Death, Progress, Status, StepProgress
from app.web.blueprints import page
from app.web.monitoring.status_file import describe
from tests.browser.support.states import PLAN

MODEL = "zai-org/glm-test"
CHAT = "/v1/chat/completions"
STATUS = Status(
    phase="ready",
    since=1.0,
    started_at=1.0,
    version="0.1.0",
    model_name=MODEL,
    model_why=Text("set", "设置"),
    address="http://127.0.0.1:8000",
    precision="int4",
)

ROUTES = {
    "/api/session": {"GET", "POST", "DELETE"},
    "/": {"GET"},
    "/<file:name>": {"GET"},
    "/assets/<path:name>": {"GET"},
    "/health/live": {"GET"},
    "/health/ready": {"GET"},
    "/ping": {"GET"},
    "/metrics": {"GET"},
    "/openapi.json": {"GET"},
    "/api/status": {"GET"},
    "/api/plan": {"GET"},
    "/api/conversations": {"GET", "POST"},
    "/api/conversations/import": {"POST"},
    "/api/conversations/export": {"GET"},
    "/api/conversations/<conversation_id>": {"GET", "PATCH", "DELETE"},
    "/api/conversations/<conversation_id>/export": {"GET"},
    "/api/conversations/<conversation_id>/turns": {"POST"},
    "/api/turns/<message_id>/events": {"GET"},
    "/api/turns/<message_id>/stop": {"POST"},
    "/api/messages/<message_id>": {"DELETE"},
    "/v1/models": {"GET"},
    "/v1/models/<path:model_id>": {"GET"},
    "/v1/chat/completions": {"POST"},
    "/invocations": {"POST"},
    "/tokenize": {"POST"},
    "/detokenize": {"POST"},
}
"""Every route there is. A new one is added here, and gets its rule of access with it."""


def set_status(folder: Path, **changes: Any) -> None:
    write_atomically(folder / "status.json", dataclasses.replace(STATUS, **changes))


def test_every_route_is_in_the_table(app: Flask) -> None:
    methods: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        methods.setdefault(rule.rule, set()).update((rule.methods or set()) - {"HEAD", "OPTIONS"})
    assert methods == ROUTES


def test_config_is_flask_config(app: Flask) -> None:
    assert app.config["MODEL_NAME"] == MODEL
    assert app.config["ENGINE"] is None


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/api/nothing", "/health/nothing", "/v1/models/other/model"])
def test_404_has_the_error_shape(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert set(answer.get_json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")


def test_405_has_the_error_shape_and_says_what_is_allowed(client: FlaskClient) -> None:
    answer = client.get(CHAT)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_head_and_trailing_slashes(client: FlaskClient) -> None:
    for path in ("/health/live", "/health/live/", "/v1/models/", f"/v1/models/{MODEL}", f"/v1/models/{MODEL}/"):
        assert client.get(path).status_code == 200, path
        answer = client.head(path)
        assert (answer.status_code, answer.data) == (200, b"")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"[]", "not an object"),
        (b'"x"', "not an object"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": -Infinity}', "Infinity"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "digits"),
        (b"[" * 200_000, "deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deep"),
    ],
)
def test_what_is_not_strict_json_is_a_400(client: FlaskClient, body: bytes, why: str) -> None:
    answer = client.post(CHAT, data=body, content_type="application/json")
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, "invalid_json", "invalid_request_error")
    assert why in error["message"]


def test_other_content_type_is_a_415(client: FlaskClient) -> None:
    answer = client.post(CHAT, data="{}", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (415, "unsupported_media_type")


def test_413_for_a_large_body_and_for_one_that_grows_too_large_on_the_wire(client: FlaskClient) -> None:
    for content in ("x" * (4 * 1024 * 1024), "\x7f" * (3 * 1024 * 1024)):
        body = json.dumps({"messages": [{"role": "user", "content": content}]}, ensure_ascii=False)
        answer = client.post(CHAT, data=body.encode(), content_type="application/json")
        assert (answer.status_code, answer.get_json()["error"]["type"]) == (413, "invalid_request_error")


def test_500_tells_the_client_nothing_and_the_log_all(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    app.extensions["berth"] = None
    answer = client.get("/api/status")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (500, "internal_error")
    assert b"Assertion" not in answer.data and "AssertionError" in caplog.text


def test_no_engine_is_a_503(client: FlaskClient) -> None:
    messages = [{"role": "user", "content": "hi"}]
    for path, body in (
        (CHAT, {"messages": messages}),
        ("/tokenize", {"prompt": "hi"}),
        ("/detokenize", {"tokens": []}),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "engine_away")
        assert int(answer.headers["Retry-After"]) > 0


def test_while_loading_everything_says_how_far_it_is(client: FlaskClient, tmp_path: Path) -> None:
    set_status(
        tmp_path,
        phase="loading",
        progress=Progress(done_bytes=2**29, total_bytes=2**31, started_at=1.0, eta_seconds=12.4),
    )
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.get_json()["phase"]) == (503, "loading")
    assert ready.get_json()["progress"]["done_bytes"] == 2**29
    assert client.get("/ping").data == ready.data
    chat = client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
    assert (chat.status_code, chat.get_json()["error"]["code"], chat.headers["Retry-After"]) == (
        503, "model_not_ready", "13",
    )  # fmt: skip
    assert "0.50 of 2.00 GiB" in chat.get_json()["error"]["message"]


def test_while_the_memory_is_checked_the_steps_and_their_time_are_said(client: FlaskClient, tmp_path: Path) -> None:
    set_status(tmp_path, phase="proving", steps=StepProgress(2, 12, 0.25, 7.6))
    chat = client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
    assert (chat.status_code, chat.headers["Retry-After"]) == (503, "8")
    assert "step 3 of 12" in chat.get_json()["error"]["message"]
    steps = client.get("/api/status").get_json()["steps"]
    assert steps == {"done": 2, "total": 12, "share": 0.25, "eta_seconds": 7.6}


def test_no_time_is_promised_before_the_first_byte_and_after_the_last(client: FlaskClient, tmp_path: Path) -> None:
    full = Progress(done_bytes=2**31, total_bytes=2**31, started_at=1.0, eta_seconds=0.0)
    for stage, progress in (("starting_process", None), ("preparing", full)):
        set_status(tmp_path, phase="loading", load_stage=stage, progress=progress)
        chat = client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
        assert (chat.status_code, chat.headers["Retry-After"]) == (503, "5")


def test_when_failed_the_reason_and_the_page_are_named(client: FlaskClient, tmp_path: Path) -> None:
    refusal = Refusal(Text("16 GiB are needed.", ""), Text("Set GLM_PRECISION=auto.", ""), "GLM_PRECISION=auto")
    set_status(tmp_path, phase="failed", refusal=refusal)
    message = client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]}).get_json()["error"]["message"]
    for part in ("16 GiB are needed.", "Set GLM_PRECISION=auto.", "http://127.0.0.1:8000"):
        assert part in message


def test_status_is_the_contract_and_follows_the_file(client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "status.json").unlink()
    first = client.get("/api/status")
    assert (first.get_json()["phase"], first.headers["Cache-Control"]) == ("starting", "no-store")
    set_status(tmp_path, phase="planning")
    assert client.get("/api/status").get_json()["phase"] == "planning"
    set_status(tmp_path)
    assert client.get("/api/status").get_json() == to_json(STATUS)


def test_the_plan_alone_the_chosen_rung_first(client: FlaskClient, tmp_path: Path) -> None:
    assert PLAN.rungs[0].verdict == "too_large"
    set_status(tmp_path, plan=PLAN)
    answer = client.get("/api/plan")
    body = answer.get_json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert list(body)[:4] == ["chosen", "refusal", "rungs", "origins"]
    assert [rung["verdict"] for rung in body["rungs"]][:2] == ["chosen", "too_large"]
    assert body["rungs"][0] == body["chosen"]
    assert from_json(Plan, body) == dataclasses.replace(PLAN, rungs=PLAN.in_order)


def test_no_plan_yet_is_a_503_with_the_error_shape(client: FlaskClient, tmp_path: Path) -> None:
    set_status(tmp_path, phase="planning")
    answer = client.get("/api/plan")
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (503, "no_plan", "server_error")
    assert answer.headers["Retry-After"] == "1"


def test_broken_status_file_leaves_the_last_good_one(client: FlaskClient, tmp_path: Path) -> None:
    assert client.get("/health/ready").status_code == 200
    for broken in ("", "{", '{"phase": "dancing"}', "[]"):
        (tmp_path / "status.json").write_text(broken)
        assert client.get("/health/ready").status_code == 200


def test_every_phase_has_words() -> None:
    death = Death(
        at=1.0,
        cause="out_of_memory",
        phase="ready",
        exit_code=40,
        signal=None,
        why=Text("Out of memory.", ""),
        remedy=None,
        limit_bytes=None,
        peak_bytes=None,
    )
    for phase in ("starting", "planning", "downloading", "loading", "proving", "ready", "recovering", "stopping"):
        assert describe(dataclasses.replace(STATUS, phase=phase)).endswith(".")  # type: ignore[arg-type]
    stalled = dataclasses.replace(STATUS, phase="downloading", note=Text("No byte for 30 s.", "没有数据。"))
    assert describe(stalled).endswith(". No byte for 30 s.")
    assert "Out of memory." in describe(dataclasses.replace(STATUS, phase="recovering", last_death=death))
    assert "Out of memory." in describe(dataclasses.replace(STATUS, phase="failed", last_death=death))


def test_page_that_is_not_built_says_so(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "DIST", tmp_path / "nowhere")
    note = Text("<b>no memory</b>", "")
    progress = Progress(done_bytes=1, total_bytes=2, started_at=1.0, eta_seconds=None)
    set_status(tmp_path, phase="loading", model_name="<b>x</b>", progress=progress, note=note)
    answer = client.get("/")
    assert answer.status_code == 200 and "make client" in answer.text
    assert "being loaded" in answer.text and "<b>" not in answer.text
    assert "no memory" not in answer.text, "what went wrong is for those who have the key"
    assert client.get("/favicon.ico").status_code == 204
    assert client.get("/assets/x.js").status_code == 404


def test_built_page(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<title>built</title>")
    (dist / "favicon.svg").write_text("<svg/>")
    (dist / "assets" / "index-abc.js").write_text("1")
    monkeypatch.setattr(page, "DIST", dist)
    with client.get("/") as index, client.get("/assets/index-abc.js") as asset, client.get("/favicon.svg") as icon:
        assert (index.text, index.headers["Cache-Control"]) == ("<title>built</title>", "no-cache")
        assert "immutable" in asset.headers["Cache-Control"] and asset.mimetype == "text/javascript"
        assert icon.mimetype == "image/svg+xml"
    (dist / "assets" / "index-abc.js.gz").write_bytes(b"2")
    with client.get("/assets/index-abc.js", headers={"Accept-Encoding": "gzip"}) as asset:
        assert (asset.data, asset.headers["Content-Encoding"], asset.mimetype) == (b"2", "gzip", "text/javascript")
        assert "Accept-Encoding" in asset.headers["Vary"] and "immutable" in asset.headers["Cache-Control"]
    with client.get("/assets/index-abc.js", headers={"Accept-Encoding": "gzip;q=0"}) as asset:
        assert asset.data == b"1" and "Accept-Encoding" in asset.headers["Vary"]
    assert client.get("/assets/" + "a" * 300, headers={"Accept-Encoding": "gzip"}).status_code == 404
    for path in ("/assets/../../status.json", "/assets/%2e%2e/%2e%2e/status.json", "/..%2fstatus.json"):
        assert client.get(path).status_code == 404


def test_headers_are_everywhere(client: FlaskClient) -> None:
    for path in ("/", "/nothing", "/v1/nothing", "/health/live"):
        with client.get(path) as answer:
            headers = answer.headers
        assert "default-src 'none'; script-src 'self';" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_status_replaced_within_the_same_clock_tick_is_seen(client: FlaskClient, tmp_path: Path) -> None:
    set_status(tmp_path, phase="loading")
    stamp = time.time_ns()
    os.utime(tmp_path / "status.json", ns=(stamp, stamp))
    assert client.get("/api/status").get_json()["phase"] == "loading"
    set_status(tmp_path, phase="proving")
    os.utime(tmp_path / "status.json", ns=(stamp, stamp))
    assert client.get("/api/status").get_json()["phase"] == "proving"
