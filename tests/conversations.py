"""Conversations for tests: ids, questions, and the API over HTTP or over Flask's test client."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask.testing import FlaskClient

from app.contract.codec import from_json
from app.contract.conversations import Conversation, StoredMessage, Turn

Send = Callable[[str, str, Any], tuple[int, Any]]
"""Method, path, body as JSON -> status and the answer's body."""


def new_id() -> str:
    return str(uuid.uuid4())


def over_http(port: int) -> Send:
    """Sends requests to a service on this machine, each on a connection of its own."""

    def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text
        finally:
            connection.close()

    return send


def over_flask(client: FlaskClient) -> Send:
    """Sends requests to the app, without a server."""

    def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = client.open(path, method=method, json=body)
        return answer.status_code, answer.get_json() if answer.is_json else answer.get_data(as_text=True)

    return send


def question(content: str, parent_id: str | None = None) -> dict[str, Any]:
    """A turn's body with fresh ids."""
    return {"answer_id": new_id(), "question_id": new_id(), "content": content, "parent_id": parent_id}


def parse_events(body: str | bytes) -> list[Any]:
    """The events of an event stream."""
    text = body.decode() if isinstance(body, bytes) else body
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: ")]


@dataclass(frozen=True)
class Chats:
    """The API. Each response is checked against the contract."""

    send: Send

    def fine(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.send(method, path, body)
        assert status < 300, (status, answer)
        return answer

    def create(self, **settings: Any) -> str:
        made = self.fine("POST", "/api/conversations", {"id": new_id(), "settings": settings})
        return from_json(Conversation, made).head.id

    def get(self, conversation_id: str) -> Conversation:
        return from_json(Conversation, self.fine("GET", f"/api/conversations/{conversation_id}"))

    def message(self, conversation_id: str, message_id: str) -> StoredMessage:
        return next(message for message in self.get(conversation_id).messages if message.id == message_id)

    def turn(self, conversation_id: str, **body: Any) -> Turn:
        return from_json(Turn, self.fine("POST", f"/api/conversations/{conversation_id}/turns", body))

    def say(self, conversation_id: str, content: str, parent_id: str | None = None) -> StoredMessage:
        """Asks a question and waits for the whole answer."""
        return self.rest(self.turn(conversation_id, **question(content, parent_id)).answer.id)

    def rest(self, answer_id: str) -> StoredMessage:
        """Reads an answer's events to the end."""
        events = parse_events(self.fine("GET", f"/api/turns/{answer_id}/events"))
        return from_json(StoredMessage, events[-1]["message"])

    def titles(self, search: str = "") -> list[str]:
        page = self.fine("GET", f"/api/conversations?{urlencode({'search': search})}")
        return [head["title"] for head in page["conversations"]]

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str | None, str | None]:
        """Status, code and field of an error in the API's shape."""
        status, answer = self.send(method, path, body)
        assert set(answer["error"]) == {"message", "type", "param", "code"}, answer
        return status, answer["error"]["code"], answer["error"]["param"]
