"""The serving bench's client and table, beside a server of three answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.bench.serving.client import Stream, Target, ask
from tests.bench.serving.contestants import Contestant, contestants
from tests.bench.serving.figures import figures_of
from tests.bench.serving.report import table, write_report

COMPLETION = [
    {"content": "a", "tokens_predicted": 1, "stop": False},
    {"content": "b", "tokens_predicted": 2, "stop": False},
    {"content": "", "tokens_predicted": 2, "stop": True},
]
CHAT = [
    {"choices": [{"delta": {"content": "a"}}]},
    {"choices": [{"delta": {"content": "b"}}]},
    {"choices": [], "usage": {"completion_tokens": 2}},
]
Asked = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def server() -> Iterator[tuple[int, Asked]]:
    """Its port, and the requests that came."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            for event in COMPLETION if self.path == "/completion" else CHAT:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http.server_port, asked
        http.shutdown()
        thread.join()


def test_a_chat_server_gets_a_message(server: tuple[int, Asked]) -> None:
    port, asked = server
    stream = ask(Target(port, "m"), "hello", 2)
    assert (stream.tokens, len(stream.arrivals)) == (2, 2)
    assert asked[0][0] == "/v1/chat/completions"
    assert asked[0][1]["messages"] == [{"role": "user", "content": "hello"}]


def test_llama_cpp_gets_ids_and_may_not_end_early(server: tuple[int, Asked]) -> None:
    port, asked = server
    stream = ask(Target(port, "m", encode=lambda text: [len(text), 7]), "hello", 2)
    assert (stream.tokens, len(stream.arrivals)) == (2, 2)
    path, body = asked[0]
    assert path == "/completion"
    assert body == {
        "prompt": [5, 7],
        "n_predict": 2,
        "temperature": 0,
        "stream": True,
        "cache_prompt": False,
        "ignore_eos": True,
    }


def test_a_short_answer_is_an_error(server: tuple[int, Asked]) -> None:
    with pytest.raises(RuntimeError, match="3 were wanted"):
        ask(Target(server[0], "m", encode=lambda _: [1]), "hello", 3)


def test_batching_runs_in_bf16_alone() -> None:
    assert contestants(["berth", "llama", "batching"], ["bf16", "int4"]) == [
        Contestant("berth", "bf16"),
        Contestant("llama", "bf16"),
        Contestant("batching", "bf16"),
        Contestant("berth", "int4"),
        Contestant("llama", "int4"),
    ]


def test_the_table_compares_each_form_with_its_counterpart() -> None:
    def rounds(gap: float) -> dict[int, list[Any]]:
        return {1: [figures_of([[Stream(0.0, (gap, 2 * gap, 3 * gap), 3)]])]}

    ours, theirs = Contestant("berth", "int8"), Contestant("llama", "int8")
    assert ours.read_bytes is not None
    # A gap of 10 ms at a bandwidth that reads the weights in 5 ms is half of it.
    lines = table({ours: rounds(0.01), theirs: rounds(0.02)}, {ours: 1.0}, ours.read_bytes / 0.005).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]
    assert cells[0] == ["1", "Berth int8", "100.0", "100.0 to 100.0", "10", "10.0", "10", "50%", ""]
    assert cells[1][1:3] == ["llama.cpp Q8_0", "50.0"]
    assert cells[1][-2:] == ["27%", "2.00"]


def test_a_report_replaces_its_own_section(tmp_path: Any) -> None:
    path = tmp_path / "serving.md"
    path.write_text("# Top\n\n## AMX\n\nold\n\n## AVX2\n\nkept\n", encoding="utf-8")
    write_report(path, "## AMX", "new")
    assert path.read_text(encoding="utf-8") == "# Top\n\n## AMX\n\nnew\n\n## AVX2\n\nkept\n"
