"""Server-sent events: their bytes, the comment line that keeps a connection alive, an error in mid-stream."""

from __future__ import annotations

import json
from typing import Any

from app.contract.wire import Delta
from app.web.http.errors import ApiError

KEEP_ALIVE = b": keep-alive\n\n"
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(value: Any) -> bytes:
    """One server-sent event. A lone surrogate becomes its JSON escape, so that nothing the model says can break it."""
    return text_event(to_json(value))


def text_event(text: str) -> bytes:
    return f"data: {text}\n\n".encode("utf-8", "backslashreplace")


def error_event(error: ApiError) -> bytes:
    """An error in mid-stream, where the status line has long been sent."""
    return event(error.body())


def says_something(delta: Delta) -> bool:
    """Whether there is more in it than a count of tokens."""
    return bool(delta.text or delta.reasoning or delta.tool_calls or delta.logprobs)
