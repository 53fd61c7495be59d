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
from app.web.chat.response import DONE, ChatResponse
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

RESPONSE = ChatResponse(id="chatcmpl-1", created=1, model="glm", system_fingerprint=None, include_usage=False)
REQUEST = ChatRequest("req_1", (Message("user", "hi"),))


@dataclass
class TurnSockets:
    """A turn, the engine's end of its socket, and the browser's end of the other."""

    turn: EngineTurn
    engine: socket.socket
    browser: socket.socket

    def send(self, *replies: Reply) -> None:
        for reply in replies:
            self.engine.sendall(dump_line(reply))


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[TurnSockets]:
    monkeypatch.setattr(completion, "KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(drain, "_deadline", None)
    engine, ours = socket.socketpair()
    browser, client = socket.socketpair()
    ours.setblocking(False)
    free = threading.BoundedSemaphore(1)
    free.acquire()
    turn = EngineTurn(EngineCall(ours, client, free), RequestRecord())
    with engine, client, browser:
        yield TurnSockets(turn, engine, browser)
        turn.close()
        turn.close()


def last_error(events: list[bytes]) -> str:
    return str(json.loads(events[-1].removeprefix(b"data: "))["error"]["code"])


def test_silence_is_filled_with_comments(sockets: TurnSockets) -> None:
    events = Completion(sockets.turn).events(RESPONSE)
    assert [next(events), next(events), next(events)] == [KEEP_ALIVE] * 3
    sockets.send(Delta("hi", 2), Finished("stop", 3, 2))
    opening, text, end = events
    assert b'"role":"assistant"' in opening and b'"content":"hi"' in text and end.endswith(DONE)
    assert (sockets.turn.record.outcome, sockets.turn.record.completion_tokens) == ("stop", 2)


def test_replies_in_pieces_and_many_at_once(sockets: TurnSockets) -> None:
    data = b"".join(dump_line(Delta(f"{n}", 1)) for n in range(50)) + dump_line(Finished("stop", 3, 50))
    events = Completion(sockets.turn).events(RESPONSE)
    next(events)
    sockets.engine.sendall(data[:37])
    assert next(events) == KEEP_ALIVE
    sockets.engine.sendall(data[37:])
    assert len(list(events)) == 1 + 50 + 1


@pytest.mark.parametrize("garbage", [b"nonsense\n", b'{"type":"delta"}\n', b'{"type":[]}\n', b"[]\n", b"\xff\n"])
def test_what_cannot_be_understood_ends_the_answer(sockets: TurnSockets, garbage: bytes) -> None:
    sockets.engine.sendall(garbage)
    assert last_error(list(Completion(sockets.turn).events(RESPONSE))) == "engine_died"


def test_a_refusal_in_mid_stream_is_an_error_event(sockets: TurnSockets) -> None:
    sockets.send(Accepted(3), Delta("a", 1), Failed(status=500, code="nan", message="The numbers broke."))
    assert last_error(list(Completion(sockets.turn).events(RESPONSE))) == "nan"
    assert sockets.turn.record.outcome == "nan"


def test_end_of_file_after_part_of_a_line(sockets: TurnSockets) -> None:
    sockets.engine.sendall(b'{"type":"del')
    sockets.engine.close()
    assert last_error(list(Completion(sockets.turn).events(RESPONSE))) == "engine_died"


def test_a_client_that_left_ends_the_wait_even_while_tokens_flow(sockets: TurnSockets) -> None:
    sockets.send(*[Delta("x", 1)] * 3)
    sockets.browser.close()
    with pytest.raises(ClientLeftError):
        Completion(sockets.turn).whole()


def test_the_end_of_the_drain_ends_the_answer(sockets: TurnSockets) -> None:
    drain.begin(0.0)
    assert last_error(list(Completion(sockets.turn).events(RESPONSE))) == "stopping"


def test_a_line_without_end_is_cut_off(sockets: TurnSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.engine_client.client.LINE_LIMIT_BYTES", 1000)
    sockets.engine.sendall(b"x" * 100_000)
    with pytest.raises(EngineDiedError):
        sockets.turn.call.wait(1)


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
            connection.sendall(dump_line(Failed(status=429, code="queue_full", message="Full.")))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        call = EngineClient(str(path), 1).call(large, None)
        assert call.wait(1) == Failed(status=429, code="queue_full", message="Full.")
        call.close()
        thread.join()


def test_an_engine_that_accepts_nothing_is_not_waited_for_for_ever(
    sockets: TurnSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "ACCEPT_SECONDS", 0.1)
    with pytest.raises(ApiError) as caught:
        completion.await_acceptance(sockets.turn)
    assert (caught.value.status, caught.value.code) == (503, "engine_silent")
