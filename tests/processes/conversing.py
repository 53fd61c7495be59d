"""Conversations with a web process of its own: who asks, who reads, who waits."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

from tests.conversations import Chats, over_http, told
from tests.processes.web import WebProcess


def chats_of(web: WebProcess) -> Chats:
    return Chats(over_http(web.port))


class Reader:
    """One page that follows a turn, and may leave at any moment."""

    def __init__(self, web: WebProcess, answer_id: str, after: int = 0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
        self._connection.request("GET", f"/api/turns/{answer_id}/events?after={after}")
        self.answer = self._connection.getresponse()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self._connection.close()

    def event(self) -> Any:
        """The next event."""
        while line := self.answer.readline():
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        raise AssertionError("the stream has ended")

    def rest(self) -> list[Any]:
        """All events that are left."""
        return told(self.answer.read())


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def joined(events: list[Any]) -> str:
    return "".join(event["content"] for event in events)
