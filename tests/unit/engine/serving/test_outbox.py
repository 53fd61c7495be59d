"""Replies between the engine's thread and a connection."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.contract.codec import from_json
from app.contract.wire import Accepted, Delta, Finished, Reply, TokenChance, TokenLogprob, ToolCallDelta
from app.engine.serving.outbox import Outbox


@dataclass
class Line:
    """A box, and the client's end of the socket that it sends to."""

    outbox: Outbox
    client: socket.socket

    def ready(self) -> bool:
        return bool(select.select([self.outbox], [], [], 0)[0])

    def put(self, *replies: Reply) -> None:
        for reply in replies:
            self.outbox.put(reply)

    def take(self) -> list[Reply]:
        """What waits for the connection's thread."""
        return parse(self.outbox.drain()[0])

    def receive(self) -> bytes:
        """What was sent at once."""
        data = b""
        while select.select([self.client], [], [], 0)[0] and (part := self.client.recv(1 << 20)):
            data += part
        return data


def parse(lines: bytes) -> list[Reply]:
    return [from_json(Reply, json.loads(line), "reply") for line in lines.splitlines()]  # type: ignore[arg-type]


@pytest.fixture
def line() -> Iterator[Line]:
    connection, client = socket.socketpair()
    connection.settimeout(30)
    outbox = Outbox(connection)
    with connection, client:
        yield Line(outbox, client)
        outbox.close()


def test_deltas_that_wait_are_joined_in_order(line: Line) -> None:
    assert not line.ready()
    line.put(Accepted(3), Delta("a", 1), Delta("b", 2), Finished("stop", 3, 4))
    assert line.ready() and line.receive() == b""
    data, over = line.outbox.drain()
    assert parse(data) == [Accepted(3), Delta("ab", 3), Finished("stop", 3, 4)] and over
    assert not line.ready()


def test_deltas_go_out_at_once_where_nothing_waits(line: Line) -> None:
    line.put(Accepted(3))
    assert line.take() == [Accepted(3)] and line.outbox.drain() == (b"", False)
    line.put(Delta("a", 1), Delta("", 1, "b"))
    assert not line.ready() and parse(line.receive()) == [Delta("a", 1), Delta("", 1, "b")]
    line.put(Finished("stop", 3, 2))
    assert line.ready() and line.receive() == b""
    assert line.take() == [Finished("stop", 3, 2)]


def test_what_is_taken_is_not_overtaken(line: Line) -> None:
    """Whoever took something may be sending it still."""
    line.put(Delta("a", 1))
    assert line.take() == [Delta("a", 1)]
    line.put(Delta("b", 1))
    assert line.ready() and line.receive() == b""
    assert line.take() == [Delta("b", 1)]


def test_a_full_socket_keeps_the_rest_waiting(line: Line) -> None:
    line.outbox.drain()
    word, count = "x" * 50_000, 0
    while not line.ready():
        line.put(Delta(word, 1))
        count += 1
    line.put(*[Delta(word, 1)] * 5)
    data = line.receive() + line.outbox.drain()[0]
    deltas = [reply for reply in parse(data) if isinstance(reply, Delta)]
    assert "".join(delta.text for delta in deltas) == word * (count + 5)
    assert sum(delta.tokens for delta in deltas) == count + 5
    assert len(deltas) <= count + 1
    assert line.outbox.drain() == (b"", False)
    line.put(Delta("y", 1))
    assert not line.ready() and parse(line.receive()) == [Delta("y", 1)]


def test_a_client_that_is_gone_is_left_to_the_connection(line: Line) -> None:
    line.outbox.drain()
    line.client.close()
    line.put(Delta("a", 1))
    assert line.ready() and parse(line.outbox.drain()[0]) == [Delta("a", 1)]


def test_each_token_keeps_its_log_probability(line: Line) -> None:
    tokens = [TokenLogprob(TokenChance(text, tuple(text.encode()), -1.0)) for text in "ab"]
    line.outbox.drain()
    for token in tokens:
        line.put(Delta(token.chosen.text, 1, logprobs=(token,)))
    assert line.take() == [Delta("ab", 2, logprobs=tuple(tokens))]


def test_a_closed_box_drops_what_comes(line: Line) -> None:
    line.outbox.close()
    line.outbox.close()
    line.put(Delta("late", 1))
    assert line.outbox.drain() == (b"", False)


def test_deltas_of_several_kinds_keep_their_order(line: Line) -> None:
    call = (ToolCallDelta(0, "call_1", "f"),)
    line.put(Delta("", 1, "a"), Delta("", 1, "b"), Delta("c", 2), Delta("", 3, tool_calls=call), Delta("d", 1))
    assert line.take() == [Delta("", 2, "ab"), Delta("c", 2), Delta("", 3, tool_calls=call), Delta("d", 1)]
    line.put(Delta("", 1, tool_calls=call))
    line.put(Delta("", 0, tool_calls=(ToolCallDelta(0, arguments="{}"),)))
    assert line.take() == [Delta("", 1, tool_calls=(*call, ToolCallDelta(0, arguments="{}")))]
