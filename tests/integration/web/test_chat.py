"""Chat through the real web process and a fake engine on a real socket: the official client, errors, cancelling."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.processes.fake_engine import FakeEngine
from tests.processes.raw_chat import RawChat, say
from tests.processes.service import wait_until
from tests.processes.web import MODEL, WebProcess, start_web

CANCEL_SECONDS = 0.3
_log = logging.getLogger("measured")


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[WebProcess]:
    process = start_web(folder, folder / "engine.sock")
    try:
        process.wait_alive()
        yield process
    finally:
        process.stop()


@pytest.fixture
def client(web: WebProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        yield client


def test_whole_answer(client: openai.OpenAI, engine: FakeEngine) -> None:
    answer = client.chat.completions.create(
        **say("echo 你好 world"), temperature=0, top_p=0.9, seed=4, stop="END", max_tokens=50
    )
    assert answer.choices[0].message.content == "你好 world "
    assert (answer.choices[0].finish_reason, answer.model, answer.object) == ("stop", MODEL, "chat.completion")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 2, 9)
    request = engine.last().request
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (0.0, 0.9, 4)
    assert (request.stop, request.max_tokens) == (("END",), 50)


def test_finish_reason_length(client: openai.OpenAI, engine: FakeEngine) -> None:
    answer = client.chat.completions.create(**say("echo a b c"), max_completion_tokens=2)
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("length", "a b ")


def test_stream_with_usage(client: openai.OpenAI, engine: FakeEngine) -> None:
    stream = client.chat.completions.create(
        **say("echo 你好 world"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "你好 world "
    assert [c.choices[0].finish_reason for c in chunks if c.choices] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 9
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_stream_on_the_wire(web: WebProcess, engine: FakeEngine) -> None:
    with RawChat(web, {**say("weird"), "stream": True}) as raw:
        head, body = raw.read_all().split(b"\r\n\r\n", 1)
    assert b"text/event-stream" in head and b"no-cache" in head and b"X-Accel-Buffering: no" in head
    events = [line for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert events[-1] == b"data: [DONE]"
    contents = [json.loads(event[6:])["choices"][0]["delta"].get("content") for event in events[:-1]]
    assert "a\ud83d\u2028\r\n</script>" in contents
    assert b"usage" not in body


def test_lone_surrogate_in_a_whole_answer(web: WebProcess, engine: FakeEngine) -> None:
    with RawChat(web, say("weird")) as raw:
        assert b"\\ud83d" in raw.read_all()


@pytest.mark.parametrize(
    ("text", "more", "error", "code"),
    [
        ("refuse", {}, openai.BadRequestError, "context_length_exceeded"),
        ("full", {}, openai.RateLimitError, "queue_full"),
        ("die", {}, openai.InternalServerError, "engine_died"),
        ("echo", {"model": "other"}, openai.NotFoundError, "model_not_found"),
        ("echo", {"n": 2}, openai.BadRequestError, "unsupported_parameter"),
        ("echo", {"temperature": 9}, openai.BadRequestError, "invalid_value"),
    ],
)
def test_errors_are_openais_exceptions(
    client: openai.OpenAI, engine: FakeEngine, text: str, more: Any, error: type[openai.APIStatusError], code: str
) -> None:
    for stream in (False, True):
        if text == "die" and stream:
            continue
        with pytest.raises(error) as caught:
            client.chat.completions.create(**{**say(text), **more, "stream": stream})
        assert caught.value.code == code
        if code == "queue_full":
            assert caught.value.response.headers["retry-after"] == "3"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_no_engine_and_not_ready(client: openai.OpenAI, web: WebProcess) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**say("echo"))
    assert (caught.value.status_code, caught.value.code) == (503, "engine_away")
    web.set_phase("loading")
    try:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**say("echo"))
        assert (caught.value.status_code, caught.value.code) == (503, "model_not_ready")
    finally:
        web.set_phase("ready")


def test_engine_that_dies_in_mid_stream_is_an_error_event(client: openai.OpenAI, engine: FakeEngine) -> None:
    stream = client.chat.completions.create(**say("die"), stream=True)
    started, got = time.monotonic(), []
    with pytest.raises(openai.APIError) as caught:
        for chunk in stream:
            got.append(chunk.choices[0].delta.content)
    assert caught.value.code == "engine_died"
    assert "half an " in got and time.monotonic() - started < 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["slow 400", "hang", "deaf"])
def test_a_client_that_leaves_cancels(web: WebProcess, engine: FakeEngine, text: str, stream: bool) -> None:
    latencies = []
    for _ in range(5):
        engine.received.clear()
        with RawChat(web, {**say(text), "stream": stream}):
            seen = engine.last()
            time.sleep(0.15)
        left = time.monotonic()
        assert seen.done.wait(5) and seen.cancelled_at is not None, "the engine was never told"
        latencies.append(seen.cancelled_at - left)
    _log.info(f"cancelled after {max(latencies) * 1000:.0f} ms at most")
    assert max(latencies) < CANCEL_SECONDS


def test_pipelined_bytes_do_not_hide_a_client_that_leaves(web: WebProcess, engine: FakeEngine) -> None:
    with RawChat(web, {**say("hang"), "stream": True}) as raw:
        raw.socket.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        seen = engine.last()
        time.sleep(0.1)
    left = time.monotonic()
    assert seen.done.wait(5) and seen.cancelled_at is not None
    assert seen.cancelled_at - left < CANCEL_SECONDS


def test_threads_are_left_for_health_whatever_the_streams_do(web: WebProcess, engine: FakeEngine) -> None:
    raws = [RawChat(web, {**say("hang"), "stream": True}) for _ in range(12)]
    try:
        wait_until(lambda: len(engine.received) == 8, 5, "eight streams reach the engine")
        started = time.monotonic()
        for path in ("/health/live", "/health/ready", "/api/status"):
            web.get(path)
        assert time.monotonic() - started < 5
        assert sum(b"429" in raw.first_bytes() for raw in raws) == 4
    finally:
        for raw in raws:
            raw.close()
    wait_until(lambda: all(seen.done.is_set() for seen in engine.received), 5, "all are cancelled")


def test_connections_that_say_nothing_cost_no_thread(web: WebProcess, engine: FakeEngine) -> None:
    silent = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(60)]
    try:
        started = time.monotonic()
        web.get("/health/live")
        assert time.monotonic() - started < 5
    finally:
        for connection in silent:
            connection.close()


def test_clients_that_do_not_close_hold_up_nobody(web: WebProcess, engine: FakeEngine) -> None:
    lazy = []
    try:
        for _ in range(20):
            lazy.append(RawChat(web, say("echo x")))
            assert lazy[-1].read_all().startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        web.get("/health/live")
        assert time.monotonic() - started < 0.5
    finally:
        for raw in lazy:
            raw.close()


def test_a_body_that_is_refused_while_it_is_sent_gets_its_answer(web: WebProcess) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=5) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 5000000\r\n\r\n".encode() + b"x" * 5_000_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_many_at_once_are_not_mixed_up(client: openai.OpenAI, engine: FakeEngine) -> None:
    answers: dict[int, str | None] = {}

    def ask(number: int) -> None:
        answer = client.chat.completions.create(**say(f"echo {number} {number}"))
        answers[number] = answer.choices[0].message.content

    for start in range(0, 40, 8):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(start, start + 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: f"{number} {number} " for number in range(40)}


def test_the_log_has_a_line_for_each_request_and_no_content(web: WebProcess, engine: FakeEngine) -> None:
    with RawChat(web, say("echo secret-words")) as raw:
        head = raw.read_all().decode()
    request_id = head.lower().split("x-request-id: ")[1].split("\r\n")[0]
    wait_until(lambda: request_id in web.log, 5, "the line is logged")
    line = next(line for line in web.log.splitlines() if request_id in line)
    facts = json.loads(line)
    assert (facts["event"], facts["status"], facts["outcome"], facts["stream"]) == ("request", 200, "stop", False)
    assert (facts["prompt_tokens"], facts["completion_tokens"], facts["path"]) == (7, 1, "/v1/chat/completions")
    assert "secret" not in web.log and "Traceback" not in web.log
