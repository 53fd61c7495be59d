"""Conversations through a real web process: the API, and a page that reads a turn."""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.conversations import Chats, over_http, parse_events
from tests.processes.web import WebProcess


def chats_of(web: WebProcess) -> Chats:
    """The process's API."""
    return Chats(over_http(web.port))


class TurnReader:
    """A page that reads a turn's events. It may disconnect at any moment."""

    def __init__(self, web: WebProcess, answer_id: str, after: int = 0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
        self._connection.request("GET", f"/api/turns/{answer_id}/events?after={after}")
        self.answer = self._connection.getresponse()

    def __enter__(self) -> TurnReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self._connection.close()

    def event(self) -> Any:
        """The next event."""
        while line := self.answer.readline():
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        raise AssertionError("the stream ended")

    def rest(self) -> list[Any]:
        """All further events."""
        return parse_events(self.answer.read())


def content_of(events: list[Any]) -> str:
    """The text of all events together."""
    return "".join(event["content"] for event in events)
