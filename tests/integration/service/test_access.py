"""Who may come in, as a stranger meets it: the real service on a real port, with a key."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import resource
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.web.wsgi.request_buffer import BUFFER_SECONDS
from tests.processes.service import Service, run_entrypoint, running, wait_until

SLOW_CLIENTS = 300
WRONG = "incorrect-horse-battery-staple"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a key that it has made itself. Alive: who may come in doesn't depend on the model."""
    with running(tmp_path_factory.mktemp("access"), GLM_AUTH="on", GLM_MODEL="demo") as service:
        wait_until(lambda: answers(service, "/health/live"), 30, "alive")
        yield service


def answers(service: Service, path: str) -> bool:
    assert service.process.poll() is None, service.log()[-4000:]
    with contextlib.suppress(OSError):
        return ask(service, "GET", path).status == 200
    return False


def key_of(service: Service) -> str:
    return (service.state_dir / "api_key").read_text().strip()


class Answer:
    """A whole answer."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


def ask(service: Service, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Underscores in header names stand for hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) or body is None else json.dumps(body)
    if data is not None:
        given.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, data, given)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def bearer(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {key_of(service)}"}


def raw(service: Service, data: bytes) -> bytes:
    """What comes back for exactly these bytes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def routes() -> list[str]:
    """Every address that is not public."""
    return [
        "/api/status", "/api/plan", "/v1/models", "/v1/models/demo", "/v1/chat/completions", "/invocations",
        "/tokenize", "/detokenize", "/metrics", "/openapi.json", "/api/conversations", "/api/conversations/export",
        "/api/conversations/import", "/api/conversations/x", "/api/turns/x/events", "/api/turns/x/stop",
        "/api/messages/x",
    ]  # fmt: skip


def test_strangers_get_nothing_whatever_they_send(service: Service) -> None:
    for path in routes():
        allowed = [m for m in ("GET", "POST", "PATCH", "DELETE") if ask(service, m, path, b"{}").status != 405]
        assert allowed, path
        for method in allowed:
            for headers in (
                {},
                {"Cookie": "berth_0=x"},
                {"X_Forwarded_For": "127.0.0.1"},
                {"X_Api_Key": key_of(service)},
            ):
                answer = ask(service, method, path, b"{}", **headers)
                assert (answer.status, answer.code) == (401, "missing_api_key"), (method, path, headers)
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_wrong_key_opens_nothing_and_the_right_one_does(service: Service) -> None:
    for path in ("/api/status", "/v1/models", "/metrics"):
        assert ask(service, "GET", path, Authorization=f"Bearer {WRONG}").code == "invalid_api_key"
        assert ask(service, "GET", path, **bearer(service)).status == 200


def test_signing_in_out_and_the_cookie_afterwards(service: Service) -> None:
    entered = ask(service, "POST", "/api/session", {"key": key_of(service)})
    cookie = entered.headers["Set-Cookie"].partition(";")[0]
    csrf = json.loads(entered.body)["csrf_token"]
    assert ask(service, "GET", "/api/status", Cookie=cookie).status == 200
    body = {"tokens": [-1]}
    assert ask(service, "POST", "/detokenize", body, Cookie=cookie).code == "csrf"
    assert ask(service, "POST", "/detokenize", body, Cookie=cookie, X_CSRFToken=csrf).status == 400, "let in"
    large = json.dumps({"padding": "x" * 5_000_000}).encode()
    imported = ask(service, "POST", "/api/conversations/import", large, Cookie=cookie, X_CSRFToken=csrf)
    assert imported.status == 400, "of a size that imports may have, and not an export"
    evil = {"Cookie": cookie, "X_CSRFToken": csrf, "Origin": "https://evil.example"}
    assert ask(service, "POST", "/detokenize", body, **evil).code == "other_origin"
    assert ask(service, "DELETE", "/api/session", Cookie=cookie, X_CSRFToken=csrf).status == 204
    assert ask(service, "GET", "/api/status", Cookie=cookie).status == 401


def test_the_log_invites_by_a_link_and_prints_it_again(service: Service) -> None:
    link = f"http://127.0.0.1:{service.port}/#key={key_of(service)}"
    wait_until(lambda: answers(service, "/health/ready"), 90, "ready")
    wait_until(lambda: service.log().count(link) == 2, 30, "the link at the start and at the end of it")
    body = {"messages": [{"role": "user", "content": "What is Berth?"}], "max_tokens": 4}
    assert ask(service, "POST", "/v1/chat/completions", body, **bearer(service)).status == 200
    again = run_entrypoint("link", GLM_STATE_DIR=str(service.state_dir), GLM_PORT=str(service.port), GLM_AUTH="on")
    assert (again.returncode, again.stdout) == (0, f"{link}\n")


def test_the_key_is_in_its_file_and_in_those_links_alone(service: Service) -> None:
    key = key_of(service)
    ask(service, "GET", "/v1/models", Authorization=f"Bearer {key}")
    ask(service, "POST", "/api/session", {"key": key})
    for path in (*service.state_dir.rglob("*"), *service.log_file.parent.rglob("*")):
        if path.is_file() and path.name not in ("api_key", "service.log"):
            assert key.encode() not in path.read_bytes(), path
    for name in ("api_key", "sessions.json"):
        assert stat.S_IMODE((service.state_dir / name).stat().st_mode) == 0o600
    assert all(f"/#key={key}" in line for line in service.log().splitlines() if key in line)
    for path in ("/api/status", "/api/plan", "/metrics", "/health/ready", "/", "/v1/models", "/openapi.json"):
        assert key.encode() not in ask(service, "GET", path, **bearer(service)).body, path
    for child in ("app.web", "app.engine"):
        process = Path("/proc") / str(service.child(child))
        assert key.encode() not in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()


def test_a_given_key_is_nowhere_but_where_the_web_service_reads_it(tmp_path: Path) -> None:
    key = "given-horse-battery-staple"
    with running(tmp_path, GLM_AUTH="on", GLM_API_KEY=key, GLM_MODEL="demo") as service:
        wait_until(lambda: answers(service, "/health/live"), 30, "alive")
        answer = ask(service, "GET", "/api/status", Authorization=f"Bearer {key}")
        assert answer.status == 200 and key.encode() not in answer.body
        held = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
        assert [path.name for path in held] == ["api_key"] and service.state_dir not in held[0].parents
        assert stat.S_IMODE(held[0].stat().st_mode) == 0o600
        assert key.encode() not in (Path("/proc") / str(service.child("app.web")) / "environ").read_bytes()
        service.stop()
        assert not held[0].exists(), "it is gone with the service"


@pytest.mark.parametrize(
    "path",
    [
        "/../api_key", "/assets/../../api_key", "/assets/..%2f..%2f..%2fapi_key", "/..%2fapi_key", "/%2e%2e/api_key",
        "/assets/%2e%2e%2f%2e%2e%2fweb%2faccess.py", "//etc/passwd", "/assets//etc/passwd", "/assets/..\\..\\api_key",
        "/assets/\x00", "/index.html%00.js", "/.env", "/assets/.gitkeep/..", "/assets/%252e%252e%252fapi_key",
    ],
)  # fmt: skip
def test_static_files_are_those_of_the_page_alone(service: Service, path: str) -> None:
    answer = raw(service, f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode("latin-1"))
    assert re.match(rb"HTTP/1.[01] (308|400|404) ", answer), answer[:80]
    assert key_of(service).encode() not in answer and b"root:" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        "X-Evil: a\r\n b",
        "X-Evil : a",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "X-Evil: \x00",
        "X-Evil: a\nSet-Cookie: b",
    ],
)
def test_requests_that_could_be_read_in_two_ways_are_refused(service: Service, headers: str) -> None:
    answer = raw(
        service, f"POST /api/session HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nConnection: close\r\n\r\n".encode()
    )
    assert re.match(rb"HTTP/1.1 4\d\d ", answer), answer[:80]
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("value", ["a%0d%0aSet-Cookie:%20x=1", "a\tb", "ü"])
def test_nothing_that_was_asked_gets_into_the_answer_s_head(service: Service, value: str) -> None:
    request = (
        f"GET /v1/models/{value} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {value}\r\nConnection: close\r\n\r\n"
    )
    head = raw(service, request.encode()).partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie" not in head and value.encode() not in head
    for name in ("Script-Name", "Path-Info", "X-Forwarded-Prefix", "X-Forwarded-Host"):
        answer = ask(service, "GET", "/api/session", **{name: "/evil"})
        assert answer.status == 200 and b"evil" not in answer.body


def test_nobody_is_waited_for_before_the_key_is_known(service: Service) -> None:
    head = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = raw(service, head + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 4000\r\n\r\n")
    assert b"HTTP/1.1 417 " in answer, answer[:80]


def test_what_is_too_large_is_refused_before_it_is_read(service: Service) -> None:
    line = raw(service, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4(00|14) ", line), line[:80]
    headers = raw(service, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 20_000)
    assert headers.startswith(b"HTTP/1.1 431 "), headers[:80]
    for path, status in (("/api/session", b"413"), ("/v1/chat/completions", b"401")):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        answer = raw(service, f"{head}Content-Length: 99999999\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:80]


def test_ten_wrong_keys_a_minute_and_no_more_are_looked_at(service: Service) -> None:
    start = time.monotonic()
    replies = [ask(service, "POST", "/api/session", {"key": f"{WRONG}{n}"}) for n in range(60)]
    minutes = (time.monotonic() - start) / 60
    statuses = [answer.status for answer in replies]
    assert set(statuses) == {401, 429} and statuses.count(401) <= 10 * (minutes + 1)
    throttled = next(answer for answer in replies if answer.status == 429)
    assert 1 <= int(throttled.headers["Retry-After"]) <= 60
    assert ask(service, "GET", "/v1/models", **bearer(service)).status == 200


def open_slow_clients(service: Service, begin: bytes) -> list[socket.socket]:
    found = []
    for _ in range(SLOW_CLIENTS):
        found.append(socket.create_connection(("127.0.0.1", service.port), timeout=30))
        found[-1].sendall(begin)
    return found


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /v1/models HT",
        b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n{",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n{",
        b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health/li",
    ],
    ids=["head", "small body", "large body", "chunked body", "second request"],
)
def test_slow_clients_leave_the_service_usable(service: Service, begin: bytes) -> None:
    """Slowloris: more of them than there are threads, each sending a byte now and then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * SLOW_CLIENTS)), hard))
    clients = open_slow_clients(service, begin)
    try:
        slowest = 0.0
        for _ in range(10):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"x")
            start = time.monotonic()
            assert ask(service, "GET", "/v1/models", **bearer(service)).status == 200
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < BUFFER_SECONDS / 2, "nobody waits for them to be given up"
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_a_client_that_never_finishes_is_given_up(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=4 * BUFFER_SECONDS) as client:
        client.sendall(b"GET /v1/models HTTP/1.1\r\n")
        start = time.monotonic()
        assert client.recv(100) == b""
        assert time.monotonic() - start > BUFFER_SECONDS / 2
