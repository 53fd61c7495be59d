"""The buffer for a request's bytes, and the deadline for a body."""

from __future__ import annotations

import socket
import time

import pytest

from app.web.wsgi import request_buffer
from app.web.wsgi.request_buffer import MAX_BODY_BYTES, MAX_HEAD_BYTES, RequestBuffer, TimedUnreader

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(length: int, *more: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: x", b"Content-Length: %d" % length, *more, b"", b""])


def complete_after(data: bytes) -> int:
    """How many bytes, added one by one, complete the request; -1 if it stays incomplete."""
    buffer = RequestBuffer()
    for n in range(len(data)):
        buffer.add(data[n : n + 1])
        if buffer.is_complete:
            assert buffer.pop_all() == data[: n + 1]
            return n + 1
    return -1


def test_without_a_body_the_head_is_all() -> None:
    assert complete_after(GET) == len(GET)
    assert complete_after(GET[:-1]) == -1


def test_a_small_body_is_waited_for() -> None:
    assert complete_after(post(3) + b"abc") == len(post(3)) + 3
    assert complete_after(post(3) + b"ab") == -1
    assert complete_after(post(0)) == len(post(0))
    assert complete_after(post(3).lower() + b"abcd") == len(post(3)) + 3


@pytest.mark.parametrize(
    "head",
    [
        post(MAX_BODY_BYTES + 1),
        post(3, b"Expect: 100-continue"),
        post(3, b"Content-Length: 4"),
        post(3, b"transfer-encoding: chunked"),
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ],
)
def test_what_cannot_be_waited_for_is_handed_on_with_the_head(head: bytes) -> None:
    assert complete_after(head) == len(head)


def test_what_comes_behind_stays_with_it() -> None:
    buffer = RequestBuffer()
    buffer.add(GET + GET[:5])
    assert buffer.is_complete and buffer.pop_all() == GET + GET[:5]
    assert not buffer and not buffer.is_complete


def test_headers_without_an_end_are_too_long() -> None:
    buffer = RequestBuffer()
    buffer.add(b"GET / HTTP/1.1\r\n")
    while not buffer.is_too_long:
        assert len(buffer.pop_all()) <= MAX_HEAD_BYTES
        buffer.add(b"x" * (MAX_HEAD_BYTES + 1))
    assert not buffer.is_complete


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
