"""A turn over real sockets: silence, garbage, death, a client that leaves, a drain that ends."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.contract.codec import dump_line
from app.contract.wire import Accepted, ChatRequest, Delta, Failed, Finished, Message, Reply
from app.web import drain
from app.web.chat import completion
from app.web.chat.completion import Completion
from app.web.chat.response import DONE, Answer
from app.web.engine_client.client import (
    ClientLeftError,
    EngineCall,
    EngineClient,
    EngineDiedError,
    EngineUnavailableError,
    TooManyCallsError,
)
from app.web.engine_client.turn import EngineTurn
from app.web.http.errors import ApiError
from app.web.http.sse import KEEP_ALIVE
from app.web.monitoring.request_log import RequestRecord

ANSWER = Answer("chatcmpl-1", 1, "glm", None, include_usage=False)
REQUEST = ChatRequest("req_1", (Message("user", "hi"),))


@dataclass
class Line:
    """A turn, the engine's end of its socket, and the browser's end of the other."""

    turn: EngineTurn
    engine: socket.socket
    browser: socket.socket

    def send(self, *replies: Reply) -> None:
        for reply in replies:
            self.engine.sendall(dump_line(reply))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(completion, "_KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(drain, "_deadline", None)
    engine, ours = socket.socketpair()
    browser, client = socket.socketpair()
    ours.setblocking(False)
    free = threading.BoundedSemaphore(1)
    free.acquire()
    turn = EngineTurn(EngineCall(ours, client, free), RequestRecord())
    with engine, client, browser:
        yield Line(turn, engine, browser)
        turn.close()
        turn.close()


def last_error(events: list[bytes]) -> str:
    return str(json.loads(events[-1].removeprefix(b"data: "))["error"]["code"])


def test_silence_is_filled_with_comments(line: Line) -> None:
    events = Completion(line.turn).events(ANSWER)
    assert [next(events), next(events), next(events)] == [KEEP_ALIVE] * 3
    line.send(Delta("hi", 2), Finished("stop", 3, 2))
    opening, text, end = events
    assert b'"role":"assistant"' in opening and b'"content":"hi"' in text and end.endswith(DONE)
    assert (line.turn.record.outcome, line.turn.record.completion_tokens) == ("stop", 2)


def test_replies_in_pieces_and_many_at_once(line: Line) -> None:
    data = b"".join(dump_line(Delta(f"{n}", 1)) for n in range(50)) + dump_line(Finished("stop", 3, 50))
    events = Completion(line.turn).events(ANSWER)
    next(events)
    line.engine.sendall(data[:37])
    assert next(events) == KEEP_ALIVE
    line.engine.sendall(data[37:])
    assert len(list(events)) == 1 + 50 + 1


@pytest.mark.parametrize("garbage", [b"nonsense\n", b'{"type":"delta"}\n', b'{"type":[]}\n', b"[]\n", b"\xff\n"])
def test_what_cannot_be_understood_ends_the_answer(line: Line, garbage: bytes) -> None:
    line.engine.sendall(garbage)
    assert last_error(list(Completion(line.turn).events(ANSWER))) == "engine_died"


def test_a_refusal_in_mid_stream_is_an_error_event(line: Line) -> None:
    line.send(Accepted(3), Delta("a", 1), Failed(500, "nan", "The numbers broke."))
    assert last_error(list(Completion(line.turn).events(ANSWER))) == "nan"
    assert line.turn.record.outcome == "nan"


def test_end_of_file_after_part_of_a_line(line: Line) -> None:
    line.engine.sendall(b'{"type":"del')
    line.engine.close()
    assert last_error(list(Completion(line.turn).events(ANSWER))) == "engine_died"


def test_a_client_that_left_ends_the_wait_even_while_tokens_flow(line: Line) -> None:
    line.send(*[Delta("x", 1)] * 3)
    line.browser.close()
    with pytest.raises(ClientLeftError):
        Completion(line.turn).whole()


def test_the_end_of_the_drain_ends_the_answer(line: Line) -> None:
    drain.begin(0.0)
    assert last_error(list(Completion(line.turn).events(ANSWER))) == "stopping"


def test_a_line_without_end_is_cut_off(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.engine_client.client.LINE_LIMIT_BYTES", 1000)
    line.engine.sendall(b"x" * 100_000)
    with pytest.raises(EngineDiedError):
        line.turn.call.wait(1)


def test_the_drain_leaves_time_for_a_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_deadline", None)
    assert not drain.is_over()
    drain.begin(20.0)
    assert drain._deadline == pytest.approx(time.monotonic() + 19.5, abs=0.2)


def test_calls_are_limited_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    client = EngineClient(str(path), 1)
    for _ in range(3):
        with pytest.raises(EngineUnavailableError):
            client.call(REQUEST, None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for _ in range(3):
            call = client.call(REQUEST, None)
            with pytest.raises(TooManyCallsError):
                client.call(REQUEST, None)
            call.close()


def test_an_engine_that_refuses_before_it_has_read_everything_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    large = dataclasses.replace(REQUEST, messages=(Message("user", "x" * 4_000_000),))

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(dump_line(Failed(429, "queue_full", "Full.")))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        call = EngineClient(str(path), 1).call(large, None)
        assert call.wait(1) == Failed(429, "queue_full", "Full.")
        call.close()
        thread.join()


def test_an_engine_that_accepts_nothing_is_not_waited_for_for_ever(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "ACCEPT_SECONDS", 0.1)
    with pytest.raises(ApiError) as caught:
        completion.await_acceptance(line.turn)
    assert (caught.value.status, caught.value.code) == (503, "engine_silent")
