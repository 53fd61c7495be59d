"""Reads whether the model should think: vLLM's `chat_template_kwargs` and OpenAI's `reasoning_effort`."""

from __future__ import annotations

from typing import Any

from app.web.http import fields
from app.web.http.errors import bad_field

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""GLM models think or don't: `none` turns thinking off, any other effort leaves it to the chat format."""


def read_thinking(body: dict[str, Any]) -> bool | None:
    """True, False, or None if the request doesn't say."""
    enabled = _template_kwargs(body.get("chat_template_kwargs"))
    if not _no_effort(body.get("reasoning_effort")):
        return enabled
    if enabled:
        raise bad_field("reasoning_effort", "is none, but chat_template_kwargs.enable_thinking is true")
    return False


def _template_kwargs(value: Any) -> bool | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise fields.wrong_type("chat_template_kwargs", "an object", value)
    fields.check_names("chat_template_kwargs.", value, ("enable_thinking",))
    enabled = value.get("enable_thinking")
    return None if enabled is None else fields.boolean("chat_template_kwargs.enable_thinking", enabled)


def _no_effort(value: Any) -> bool:
    if value is None:
        return False
    if value not in EFFORTS:
        raise bad_field("reasoning_effort", f"should be one of {', '.join(EFFORTS)}")
    return bool(value == "none")
