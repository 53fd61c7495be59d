"""A request's bytes before a thread is spent on it."""

from __future__ import annotations

import socket
import time

import pytest

from app.web.wsgi import request_buffer
from app.web.wsgi.request_buffer import BODY_BYTES, HEAD_BYTES, Gathered, TimedUnreader

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(length: int, *more: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: x", b"Content-Length: %d" % length, *more, b"", b""])


def whole_after(data: bytes) -> int:
    """How many bytes, sent one by one, make it whole."""
    gathered = Gathered()
    for n in range(len(data)):
        gathered.add(data[n : n + 1])
        if gathered.is_whole:
            assert gathered.take() == data[: n + 1]
            return n + 1
    return -1


def test_without_a_body_the_head_is_all() -> None:
    assert whole_after(GET) == len(GET)
    assert whole_after(GET[:-1]) == -1


def test_a_small_body_is_waited_for() -> None:
    assert whole_after(post(3) + b"abc") == len(post(3)) + 3
    assert whole_after(post(3) + b"ab") == -1
    assert whole_after(post(0)) == len(post(0))
    assert whole_after(post(3).lower() + b"abcd") == len(post(3)) + 3


@pytest.mark.parametrize(
    "head",
    [
        post(BODY_BYTES + 1),
        post(3, b"Expect: 100-continue"),
        post(3, b"Content-Length: 4"),
        post(3, b"transfer-encoding: chunked"),
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ],
)
def test_what_cannot_be_waited_for_is_handed_on_with_the_head(head: bytes) -> None:
    assert whole_after(head) == len(head)


def test_what_comes_behind_stays_with_it() -> None:
    gathered = Gathered()
    gathered.add(GET + GET[:5])
    assert gathered.is_whole and gathered.take() == GET + GET[:5]
    assert not gathered and not gathered.is_whole


def test_headers_without_an_end_are_too_long() -> None:
    gathered = Gathered()
    gathered.add(b"GET / HTTP/1.1\r\n")
    while not gathered.is_too_long:
        assert len(gathered.take()) <= HEAD_BYTES
        gathered.add(b"x" * (HEAD_BYTES + 1))
    assert not gathered.is_whole


def test_a_body_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        unreader = TimedUnreader(ours)
        unreader.begin(b"ab")
        assert unreader.read(2) == b"ab"
        monkeypatch.setattr(request_buffer, "BODY_SECONDS", 0.05)
        unreader.begin(b"a")
        theirs.send(b"b")
        assert unreader.read(2) == b"ab"
        with pytest.raises(TimeoutError):
            unreader.read(1)
        assert ours.gettimeout() is None
        time.sleep(0.05)
        theirs.send(b"c")
        with pytest.raises(TimeoutError):
            unreader.read(1)
