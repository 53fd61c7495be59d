"""Who may come in, without gunicorn: rules, keys, sessions, CSRF, origins, limits, proxies."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.contract.codec import to_json, write_atomically
from app.contract.config import AppConfig
from app.contract.plan import Text
from app.contract.status import Status
from app.web.access import rate_limits
from app.web.access.rules import LONG_RUNNING, RULES
from app.web.factory import create_app

KEY = "correct-horse-battery-staple"
WRONG = "incorrect-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {KEY}"}
STATUS = Status(
    phase="ready",
    since=1.0,
    started_at=1.0,
    version="0.1.0",
    model_name="glm",
    model_why=Text("set", "设置"),
    address="http://127.0.0.1:8000",
    precision="int4",
)


def make_app(folder: Path, key: str | None = KEY, proxies: int = 0) -> Flask:
    """The app after a start. Its state, such as sessions, is in the folder."""
    (folder / "api_key").write_text(key or "")
    config = AppConfig(
        MODEL_NAME="glm",
        MODEL_PATH="models/test",
        STATUS_FILE=str(folder / "status.json"),
        ENGINE_SOCKET=str(folder / "engine.sock"),
        QUEUE_LIMIT=8,
        KEY_FILE=str(folder / "api_key") if key else None,
        SESSIONS_FILE=str(folder / "sessions.json"),
        TRUSTED_PROXIES=proxies,
    )
    (folder / "config.json").write_text(json.dumps(to_json(config)))
    write_atomically(folder / "status.json", STATUS)
    return create_app(folder / "config.json")


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return make_app(tmp_path)


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


def sign_in(client: FlaskClient, key: str = KEY, **more: Any) -> TestResponse:
    return client.post("/api/session", json={"key": key}, **more)


def token(client: FlaskClient) -> dict[str, str]:
    return {"X-CSRFToken": client.get("/api/session").get_json()["csrf_token"]}


def code(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]["code"]


# the table


def requests_to(app: Flask, *rules: str) -> list[tuple[str, str]]:
    """Method and address of every route with one of these rules."""
    pairs = []
    for rule in app.url_map.iter_rules():
        address = rule.rule
        for name in rule.arguments:
            address = address.replace(address[address.index("<") : address.index(">") + 1], f"some-{name}", 1)
        if RULES[rule.endpoint] in rules:
            pairs += [(method, address) for method in sorted((rule.methods or set()) - {"OPTIONS"})]
    return pairs


def test_every_route_has_a_rule_and_every_rule_a_route(app: Flask) -> None:
    assert {rule.endpoint for rule in app.url_map.iter_rules()} == set(RULES)
    assert set(RULES) >= LONG_RUNNING


def test_what_strangers_may_ask_is_little(app: Flask) -> None:
    public = {address for _, address in requests_to(app, "public")}
    assert public == {"/", "/assets/some-name", "/some-name", "/health/live", "/health/ready", "/ping", "/api/session"}


@pytest.mark.parametrize("key", [KEY, None])
def test_a_route_without_a_rule_is_denied_to_everybody(tmp_path: Path, key: str | None) -> None:
    app = make_app(tmp_path, key)
    app.add_url_rule("/new", "new", lambda: "secret")
    answer = app.test_client().get("/new", headers=BEARER)
    assert answer.status_code == 403 and "secret" not in answer.text


def test_no_route_but_the_public_ones_answers_without_the_key(app: Flask) -> None:
    requests = requests_to(app, "member", "session")
    assert len(requests) > 12
    for method, address in requests:
        client = app.test_client()
        answer = client.open(address, method=method)
        assert answer.status_code == 401, (method, address)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "Set-Cookie" not in answer.headers
        if method != "HEAD":
            assert code(answer) == (401, "missing_api_key")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {WRONG}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer \xff{KEY}"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"X-Api-Key": KEY},
        {"Cookie": f"session={KEY}"},
        {"X-CSRFToken": KEY},
    ],
)
def test_nothing_but_the_key_is_the_key(app: Flask, headers: dict[str, str]) -> None:
    for method, address in requests_to(app, "member", "session")[::4]:
        assert app.test_client().open(address, method=method, headers=headers).status_code == 401, (method, address)


def test_the_key_opens_the_api_and_makes_no_session(client: FlaskClient) -> None:
    for headers in (BEARER, {"Authorization": f"bearer {KEY}"}):
        answer = client.get("/v1/models", headers=headers)
        assert answer.status_code == 200 and "Set-Cookie" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/v1/models").status_code == 401
    assert client.post("/detokenize", json={"tokens": []}, headers=BEARER).status_code == 503, "no engine, but let in"
    assert client.delete("/api/session", headers=BEARER).status_code == 401, "that is for browsers"


def test_strangers_learn_the_phase_and_no_more(tmp_path: Path, client: FlaskClient) -> None:
    write_atomically(tmp_path / "status.json", replace(STATUS, phase="loading", note=Text("/srv/secret", "")))
    for path in ("/health/ready", "/ping", "/"):
        with client.get(path) as answer:
            assert "/srv/secret" not in answer.text and "glm" not in answer.text


# sessions


def test_signing_in_and_out(client: FlaskClient, tmp_path: Path) -> None:
    assert client.get("/api/session").get_json() == {"key_needed": True, "signed_in": False, "csrf_token": None}
    answer = sign_in(client)
    assert answer.status_code == 200 and answer.get_json()["signed_in"]
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/;" in f"{cookie};" and "Expires=" in cookie
    assert "Secure" not in cookie
    assert client.get("/api/status").status_code == 200
    assert stat.S_IMODE((tmp_path / "sessions.json").stat().st_mode) == 0o600
    out = client.delete("/api/session", headers=token(client))
    assert out.status_code == 204
    assert client.get("/api/status").status_code == 401
    assert client.get("/api/session").get_json()["signed_in"] is False


def test_a_cookie_from_before_the_sign_out_is_worth_nothing(app: Flask, tmp_path: Path) -> None:
    browser, thief = app.test_client(), app.test_client(use_cookies=False)
    cookie = {"Cookie": sign_in(browser).headers["Set-Cookie"].partition(";")[0]}
    assert thief.get("/api/status", headers=cookie).status_code == 200
    browser.delete("/api/session", headers=token(browser))
    assert thief.get("/api/status", headers=cookie).status_code == 401
    again = make_app(tmp_path).test_client(use_cookies=False)
    assert again.get("/api/status", headers=cookie).status_code == 401, "not even after the next start"


def test_a_session_outlives_the_service_but_not_its_key(app: Flask, tmp_path: Path) -> None:
    cookie = {"Cookie": sign_in(app.test_client()).headers["Set-Cookie"].partition(";")[0]}
    same = make_app(tmp_path).test_client(use_cookies=False)
    assert same.get("/api/status", headers=cookie).status_code == 200
    other = make_app(tmp_path, key=WRONG).test_client(use_cookies=False)
    assert other.get("/api/status", headers=cookie).status_code == 401


def test_a_session_ends_after_thirty_days(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = app.test_client()
    sign_in(client)
    now = time.time()
    monkeypatch.setattr("app.web.access.sessions.time.time", lambda: now + 31 * 24 * 3600)
    assert client.get("/api/status").status_code == 401


def test_a_session_id_that_somebody_else_knows_is_not_taken_over(app: Flask) -> None:
    """Session fixation: signing in on top of a planted cookie begins another session and ends the planted one."""
    thief, victim = app.test_client(), app.test_client()
    planted = sign_in(thief).headers["Set-Cookie"].partition(";")[0]
    name, _, value = planted.partition("=")
    victim.set_cookie(name, value)
    fresh = sign_in(victim).headers["Set-Cookie"].partition(";")[0]
    assert fresh != planted
    assert victim.get("/api/status").status_code == 200
    assert thief.get("/api/status").status_code == 401


def test_a_cookie_that_nobody_signed_is_no_session(app: Flask) -> None:
    client = app.test_client()
    name, _, value = sign_in(client).headers["Set-Cookie"].partition(";")[0].partition("=")
    for forged in (
        "",
        "x",
        value[:-2],
        value[2:],
        value.replace(".", "", 1),
        "eyJpZCI6IngifQ." + value.partition(".")[2],
    ):
        stranger = app.test_client()
        stranger.set_cookie(name, forged)
        assert stranger.get("/api/status").status_code == 401


def test_two_services_on_one_host_have_cookies_of_two_names(tmp_path: Path) -> None:
    names = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        names.add(sign_in(make_app(folder).test_client()).headers["Set-Cookie"].partition("=")[0])
    assert len(names) == 2


def test_a_broken_sessions_file_signs_everybody_out_and_no_more(app: Flask, tmp_path: Path) -> None:
    cookie = {"Cookie": sign_in(app.test_client()).headers["Set-Cookie"].partition(";")[0]}
    for broken in ("", "{", "[]", '{"secret": 1}', "\x00"):
        (tmp_path / "sessions.json").write_text(broken)
        client = make_app(tmp_path).test_client()
        assert client.get("/api/status", headers=cookie).status_code == 401
        assert sign_in(client).status_code == 200


def test_without_its_key_file_the_service_lets_nobody_in(tmp_path: Path) -> None:
    for key in ("", "\n"):
        make_app(tmp_path)
        (tmp_path / "api_key").write_text(key)
        with pytest.raises(ValueError, match="is empty"):
            create_app(tmp_path / "config.json")
    (tmp_path / "api_key").unlink()
    with pytest.raises(FileNotFoundError):
        create_app(tmp_path / "config.json")


# what a browser can be made to send


def test_what_changes_something_needs_the_token_of_the_session(app: Flask) -> None:
    client, other = app.test_client(), app.test_client()
    sign_in(client), sign_in(other)
    for headers in ({}, {"X-CSRFToken": ""}, {"X-CSRFToken": "x"}, token(other)):
        assert code(client.post("/detokenize", json={"tokens": []}, headers=headers)) == (403, "csrf")
        assert code(client.delete("/api/session", headers=headers)) == (403, "csrf")
    assert client.post("/detokenize", json={"tokens": []}, headers=token(client)).status_code == 503


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_another_origin_changes_nothing_and_signs_nobody_in(
    app: Flask, tmp_path: Path, headers: dict[str, str]
) -> None:
    client = app.test_client()
    assert code(sign_in(client, headers=headers)) == (403, "other_origin")
    sign_in(client)
    assert code(client.post("/detokenize", json={"tokens": []}, headers={**token(client), **headers})) == (
        403, "other_origin",
    )  # fmt: skip
    assert client.post("/detokenize", json={"tokens": []}, headers={**BEARER, **headers}).status_code == 503, (
        "a program"
    )
    open_app = make_app(tmp_path, key=None).test_client()
    assert code(open_app.post("/detokenize", json={"tokens": []}, headers=headers)) == (403, "other_origin")
    fine = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    assert open_app.post("/detokenize", json={"tokens": []}, headers=fine).status_code == 503


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "a.localhost"]
)
def test_open_access_answers_to_names_of_this_machine(tmp_path: Path, host: str) -> None:
    client = make_app(tmp_path, key=None).test_client()
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200
    assert client.get("/api/session", headers={"Host": host}).get_json()["key_needed"] is False


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "[", ""],
)
def test_open_access_does_not_answer_to_other_names(tmp_path: Path, host: str) -> None:
    """DNS rebinding: a page of evil.example, whose name points here by now, is of the same origin as this service."""
    client = make_app(tmp_path, key=None).test_client()
    assert client.get("/v1/models", headers={"Host": host}).status_code in (400, 403)
    assert client.get("/health/live", headers={"Host": "a.example"}).status_code == 200


# bad bodies of the one POST that strangers may send


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"key": 1}, 400), ({"key": None}, 400), ({"key": "x", "user": "y"}, 400), ({"key": "\ud800"}, 400)],
)
def test_a_sign_in_that_makes_no_sense(client: FlaskClient, body: Any, status: int) -> None:
    assert client.post("/api/session", json=body).status_code == status


def test_a_sign_in_is_small_and_its_length_told(client: FlaskClient) -> None:
    assert sign_in(client, "x" * 5000).status_code == 413
    assert sign_in(client, headers={"Transfer-Encoding": "chunked"}).status_code == 411
    assert client.post("/api/session", data=f"key={KEY}").status_code == 415, "no form of another site can send it"


# limits


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_wrong_keys_let_nobody_in_however_many(app: Flask, count: int) -> None:
    client = app.test_client()
    start = time.monotonic()
    statuses = [sign_in(client, f"{WRONG}{n}").status_code for n in range(count)]
    minutes = (time.monotonic() - start) / 60
    assert set(statuses) == {401, 429} and statuses.count(401) <= 10 * (minutes + 1), "ten a minute"
    refused = sign_in(client)
    assert code(refused) == (429, "too_many_wrong_keys"), "not even the right one is looked at any more"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert sign_in(app.test_client(), environ_overrides=elsewhere).status_code == 200
    assert client.get("/v1/models", headers=BEARER).status_code == 200, "programs with the right key go on"


def test_wrong_bearers_are_throttled_and_sessions_of_the_same_address_go_on(app: Flask) -> None:
    browser = app.test_client()
    sign_in(browser)
    client = app.test_client()
    statuses = [client.get("/v1/models", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(100)]
    assert set(statuses) == {401, 429}
    assert client.get("/v1/models", headers=BEARER).status_code == 200, "the right key's owner is not locked out"
    assert browser.get("/v1/models").status_code == 200
    elsewhere = {"REMOTE_ADDR": "2001:db8::1"}
    assert client.get("/v1/models", headers=BEARER, environ_overrides=elsewhere).status_code == 200


def test_a_network_of_one_subscriber_is_one_client(app: Flask) -> None:
    for n in range(20):
        address = {"REMOTE_ADDR": f"2001:db8:0:1::{n}"}
        last = sign_in(app.test_client(), WRONG, environ_overrides=address).status_code
    assert last == 429


def test_forwarded_addresses_count_only_where_a_proxy_is_trusted(tmp_path: Path) -> None:
    direct, proxied = make_app(tmp_path), make_app(tmp_path, proxies=1)
    for app, last in ((direct, 429), (proxied, 401)):
        answers = [sign_in(app.test_client(), WRONG, headers={"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(12)]
        assert answers[-1].status_code == last


def test_requests_of_one_client_are_limited_generously(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "REQUESTS_A_MINUTE", 5)
    app = make_app(Path(app.config["KEY_FILE"]).parent)
    client = app.test_client()
    answers = [client.get("/v1/models", headers=BEARER) for _ in range(11)]
    assert answers[0].status_code == 200
    assert code(answers[-1]) == (429, "too_many_requests") and int(answers[-1].headers["Retry-After"]) >= 1
    assert client.get("/health/live").status_code == 200


def test_a_client_waits_for_so_many_answers_at_once(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_RUNNING", 2)
    view = app.view_functions["openai.chat_completions"]
    app.view_functions["openai.chat_completions"] = lambda: iter(["a", "b"])  # a stream
    client = app.test_client()
    ask = {"path": "/v1/chat/completions", "method": "POST", "headers": BEARER}
    first, second = client.open(**ask), client.open(**ask)
    assert (first.status_code, second.status_code) == (200, 200)
    assert code(client.open(**ask)) == (429, "too_many_requests")
    assert client.open(**ask, environ_overrides={"REMOTE_ADDR": "192.0.2.7"}).status_code == 200
    first.close()
    app.view_functions["openai.chat_completions"] = view
    for _ in range(5):
        with client.open(**ask) as answer:
            assert answer.status_code == 415, "an error gives its place back, each time"


# behind a proxy


def test_prefix_scheme_and_host_of_a_trusted_proxy(tmp_path: Path) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example", "X-Forwarded-Prefix": "/berth"}
    client = make_app(tmp_path, proxies=1).test_client()
    answer = sign_in(client, headers={**forwarded, "Origin": "https://chat.example"})
    cookie = answer.headers["Set-Cookie"]
    assert "Path=/berth;" in f"{cookie};" and "Secure" in cookie
    untrusted = sign_in(make_app(tmp_path).test_client(), headers=forwarded).headers["Set-Cookie"]
    assert "Path=/;" in f"{untrusted};" and "Secure" not in untrusted
