"""Server-sent events: their encoding, the comment that keeps a connection alive, an error in mid-stream."""

from __future__ import annotations

import json
from typing import Any

from app.contract.wire import Delta
from app.web.http.errors import ApiError

KEEP_ALIVE = b": keep-alive\n\n"
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(value: Any) -> bytes:
    """One server-sent event with `value` as JSON. A lone surrogate becomes its JSON escape."""
    return text_event(to_json(value))


def text_event(text: str) -> bytes:
    """One server-sent event with JSON that is encoded already."""
    return f"data: {text}\n\n".encode("utf-8", "backslashreplace")


def error_event(error: ApiError) -> bytes:
    """An error in mid-stream, after the status line was sent."""
    return event(error.body())


def has_content(delta: Delta) -> bool:
    """Whether it has more than a count of tokens."""
    return bool(delta.text or delta.reasoning or delta.tool_calls or delta.logprobs)
