"""The service behind a reverse proxy, under a path prefix: a small real one, set up as docs/security.md says."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.integration.service.test_access import answers
from tests.processes.service import Service, running, wait_until

PREFIX = "/berth"
KEY = "a-key-behind-a-proxy"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("proxied")
    with running(folder, GLM_AUTH="on", GLM_API_KEY=KEY, GLM_TRUSTED_PROXIES="1", GLM_MODEL="demo") as service:
        wait_until(lambda: answers(service, "/health/live"), 30, "alive")
        yield service


@contextmanager
def proxy_to(service: Service) -> Iterator[int]:
    """Speaks for https://chat.example, takes the prefix off, and says for whom it asks; its port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def pass_on(self) -> None:
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            peers = [*filter(None, [self.headers.get("X-Forwarded-For")]), self.headers["X-Test-Peer"]]
            headers |= {
                "X-Forwarded-For": ", ".join(peers),
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "chat.example",
                "X-Forwarded-Prefix": PREFIX,
            }
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            upstream = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
            upstream.request(self.command, self.path.removeprefix(PREFIX), body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = pass_on

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(
    port: int, method: str, path: str, body: object = None, peer: str = "198.51.100.1", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {"Content-Type": "application/json", "X-Test-Peer": peer}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, PREFIX + path, None if body is None else json.dumps(body), given)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_a_browser_s_whole_way_under_the_prefix(service: Service) -> None:
    with proxy_to(service) as port:
        page = ask(port, "GET", "/")
        assert page[0] == 200 and b'src="/' not in page[2] and b'href="/assets' not in page[2]
        origin = {"Origin": "https://chat.example"}
        status, headers, body = ask(port, "POST", "/api/session", {"key": KEY}, **origin)
        assert status == 200
        cookie = headers["Set-Cookie"]
        assert f"Path={PREFIX};" in f"{cookie};" and "Secure" in cookie
        member = {"Cookie": cookie.partition(";")[0], "X_CSRFToken": json.loads(body)["csrf_token"]}
        assert ask(port, "GET", "/api/status", **member)[0] == 200
        assert ask(port, "POST", "/detokenize", {"tokens": [-1]}, **member, **origin)[0] == 400, "let in"
        assert ask(port, "POST", "/detokenize", {"tokens": [-1]}, **member, Origin="https://evil.example")[0] == 403
        assert ask(port, "DELETE", "/api/session", **member, **origin)[0] == 204
        assert ask(port, "GET", "/api/status", **member)[0] == 401


def test_one_client_s_wrong_keys_do_not_shut_the_others_out(service: Service) -> None:
    with proxy_to(service) as port:
        wrong = [ask(port, "POST", "/api/session", {"key": f"wrong-{n}"}, peer="198.51.100.9")[0] for n in range(30)]
        assert set(wrong) == {401, 429}
        assert ask(port, "POST", "/api/session", {"key": KEY}, peer="198.51.100.2")[0] == 200
        spoofed = {"X_Forwarded_For": "198.51.100.2"}
        last = [
            ask(port, "POST", "/api/session", {"key": "wrong"}, peer="198.51.100.9", **spoofed)[0] for _ in range(30)
        ]
        assert last[-1] == 429, "what a client claims is not what the proxy saw"
