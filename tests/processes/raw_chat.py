"""A chat request without a client library, for tests of what a library would hide."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.processes.web import MODEL, WebProcess


def say(text: str) -> Any:
    """The body of a chat with one message."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


class RawChat:
    """A chat request on a plain socket, which can be closed at any moment."""

    def __init__(self, web: WebProcess, body: Any) -> None:
        data = json.dumps(body).encode()
        self.socket = socket.create_connection(("127.0.0.1", web.port), timeout=5)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += "Content-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def __enter__(self) -> RawChat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def first_bytes(self) -> bytes:
        return self.socket.recv(200)

    def read_all(self) -> bytes:
        parts = []
        while part := self.socket.recv(65536):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.socket.close()
