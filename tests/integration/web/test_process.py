"""The web's processes: alive at once, small, never orphaned, back after a kill, patient with running answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from app.contract import exits
from tests.processes.fake_engine import FakeEngine
from tests.processes.web import MODEL, WebProcess, is_running, resident_mb, start_web, temporary_folder, wait_gone

_log = logging.getLogger("measured")


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as name:
        yield Path(name)


@pytest.fixture
def web(folder: Path) -> Iterator[WebProcess]:
    process = start_web(folder, folder / "engine.sock", drain_seconds=3)
    try:
        process.wait_alive()
        yield process
    finally:
        process.stop()


def ask(web: WebProcess, text: str) -> openai.Stream[openai.types.chat.ChatCompletionChunk]:
    client = openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0, timeout=20)
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], stream=True)


def text_of(stream: openai.Stream[openai.types.chat.ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def test_it_is_small(folder: Path) -> None:
    web = start_web(folder, folder / "engine.sock", threads=64)
    try:
        web.wait_alive()
        with FakeEngine(folder / "engine.sock"):
            streams = [ask(web, "slow 5") for _ in range(20)]
            assert {text_of(stream) for stream in streams} == {"x " * 5}
        master, worker = resident_mb(web.process.pid), resident_mb(web.worker())
        _log.info(f"master {master:.0f} MB, worker {worker:.0f} MB resident")
        assert worker < 80 and master < 60
        modules = Path(f"/proc/{web.worker()}/maps").read_text()
        assert "torch" not in modules and "pydantic" not in modules
    finally:
        web.stop()


def test_a_cut_lifeline_ends_both_even_in_mid_stream(web: WebProcess, folder: Path) -> None:
    with FakeEngine(folder / "engine.sock") as engine:
        stream = ask(web, "slow 100")
        engine.last()
        worker = web.worker()
        web.cut_lifeline()
        assert web.process.wait(10) == exits.LIFELINE_CUT
        wait_gone(worker, 10)
        stream.close()


def test_a_killed_master_takes_the_worker_along(web: WebProcess, folder: Path) -> None:
    with FakeEngine(folder / "engine.sock") as engine:
        ask(web, "slow 200")
        engine.last()
        worker = web.worker()
        web.process.kill()
        web.process.wait()
        _log.info(f"worker gone {wait_gone(worker, 2):.3f} s after its master")
    with pytest.raises(OSError):
        web.get("/health/live", 1)


def test_a_killed_worker_is_replaced(web: WebProcess, folder: Path) -> None:
    first = web.worker()
    os.kill(first, signal.SIGKILL)
    wait_gone(first, 10)
    killed = time.monotonic()
    web.get("/health/live")
    _log.info(f"answers again {time.monotonic() - killed:.2f} s after its worker was killed")
    assert web.worker() != first
    with FakeEngine(folder / "engine.sock"):
        assert text_of(ask(web, "echo again")) == "again "
    # The new worker has lifelines of its own.
    second = web.worker()
    web.process.kill()
    web.process.wait()
    wait_gone(second, 2)


def test_sigterm_lets_a_running_answer_end(web: WebProcess, folder: Path) -> None:
    with FakeEngine(folder / "engine.sock") as engine:
        stream = ask(web, "slow 20")
        engine.last()
        web.process.terminate()
        assert text_of(stream) == "x " * 20
        stream.close()
    assert web.process.wait(4) == 0


@pytest.mark.slow  # for the time that a reader is given, up to three times over
@pytest.mark.timeout(300)
def test_a_reader_that_does_not_read_loses_its_thread(web: WebProcess, folder: Path) -> None:
    """Its answer is cancelled, though it stays connected and the engine has more to say than all buffers hold."""
    with FakeEngine(folder / "engine.sock") as engine, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", web.port))
        body = json.dumps({"messages": [{"role": "user", "content": "flood 1000"}], "stream": True}).encode()
        top = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        deaf.sendall(f"{top}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        seen = engine.last()
        before = resident_mb(web.worker())
        assert seen.done.wait(200)
        assert seen.cancelled_at is not None
        _log.info(f"cancelled after {seen.cancelled_at - seen.accepted_at:.1f} s")
        assert resident_mb(web.worker()) - before < 32
        assert text_of(ask(web, "echo others are served")) == "others are served "
    assert "Traceback" not in web.log


def test_while_it_drains_whoever_comes_is_told_to_come_back(folder: Path) -> None:
    """On a connection that was open already, and on new ones: none is cut off without an answer."""
    web = start_web(folder, folder / "engine.sock", drain_seconds=30)
    web.wait_alive()
    with contextlib.ExitStack() as end, FakeEngine(folder / "engine.sock") as engine:
        end.callback(web.stop)
        kept = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
        kept.request("GET", "/health/live")
        assert kept.getresponse().read()
        stream = ask(web, "slow 60")
        engine.last()
        os.kill(web.worker(), signal.SIGTERM)
        for _ in range(2):
            answer = post(kept, "echo late")
            assert (answer.status, answer.headers["Retry-After"], answer.headers["Connection"]) == (503, "5", "close")
            assert json.loads(answer.read())["error"]["code"] == "stopping"
            kept.close()
            kept = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
        kept.close()
        assert json.loads(web.get("/health/live", 20))
        assert text_of(stream) == "x " * 60
        stream.close()
        assert len(engine.received) == 1


def post(connection: http.client.HTTPConnection, text: str) -> http.client.HTTPResponse:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection.getresponse()


def test_an_answer_longer_than_the_drain_ends_with_an_error_event(web: WebProcess, folder: Path) -> None:
    with FakeEngine(folder / "engine.sock") as engine:
        stream = ask(web, "slow 1000")
        seen = engine.last()
        web.process.terminate()
        stopped_at = time.monotonic()
        with pytest.raises(openai.APIError) as caught:
            text_of(stream)
        assert caught.value.code == "stopping"
        assert seen.done.wait(10) and seen.cancelled_at is not None
        stream.close()
        assert web.process.wait(4) == 0
        assert time.monotonic() - stopped_at < 4


def test_an_idle_service_stops_at_once_even_with_silent_connections(web: WebProcess) -> None:
    silent = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(5)]
    time.sleep(0.2)
    stopped_at = time.monotonic()
    web.process.terminate()
    assert web.process.wait(5) == 0
    _log.info(f"idle stop after {time.monotonic() - stopped_at:.2f} s")
    assert time.monotonic() - stopped_at < 5
    for connection in silent:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN])
def test_signals_of_the_terminal_are_ignored(web: WebProcess, number: signal.Signals) -> None:
    worker = web.worker()
    for pid in (web.process.pid, worker):
        os.kill(pid, number)
    time.sleep(0.3)
    web.get("/health/live")
    assert is_running(web.process.pid) and web.worker() == worker


def test_leaves_nothing_in_the_run_directory_and_no_control_socket(web: WebProcess, folder: Path) -> None:
    names = {path.name for path in folder.iterdir() if not path.name.startswith("berth.db")}
    assert names == {"config.json", "status.json", "web.log"}


def test_a_config_that_lacks_a_key_is_said_and_ends_the_service(folder: Path) -> None:
    web = start_web(folder, folder / "engine.sock")
    (folder / "config.json").write_text(json.dumps({"MODEL_NAME": MODEL}))
    try:
        assert web.process.wait(5) != 0
        assert "config.json.MODEL_PATH is missing" in web.log
    finally:
        web.stop()
