"""The `messages` of a chat request: roles, content as a string or a list of text parts, calls and their results."""

from __future__ import annotations

from typing import Any

from app.contract.limits import MAX_CALL_ID_CHARACTERS, MOST_CALLS, MOST_MESSAGES
from app.contract.wire import Message, Role, ToolCall
from app.web.chat.tools import arguments_text, function_name
from app.web.http import fields
from app.web.http.errors import bad_field

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
NAMES = (
    *("role", "content", "tool_calls", "reasoning_content", "tool_call_id"),
    *("name", "refusal", "audio", "annotations", "function_call"),
)
"""All that OpenAI's own replies carry; clients send such a reply back as it came, empty fields with it."""
READ: dict[Role, tuple[str, ...]] = {
    "assistant": ("role", "content", "tool_calls", "reasoning_content"),
    # Many clients repeat the function's name beside the id that says it already.
    "tool": ("role", "content", "tool_call_id", "name"),
}


def read_messages(value: Any) -> tuple[Message, ...]:
    """Checks the list; it has to hold at least one message, and each result has to answer a call before it."""
    if value is None:
        raise bad_field("messages", "is missing", "missing_required_parameter")
    if not isinstance(value, list):
        raise fields.wrong_type("messages", "a list", value)
    if not value:
        raise bad_field("messages", "is empty; at least one message is needed")
    if len(value) > MOST_MESSAGES:
        raise bad_field("messages", f"holds {len(value)} messages; at most {MOST_MESSAGES} are accepted")
    messages = tuple(_message(f"messages[{n}]", item) for n, item in enumerate(value))
    asked: set[str] = set()
    for n, message in enumerate(messages):
        if message.tool_call_id is not None and message.tool_call_id not in asked:
            raise bad_field(f"messages[{n}].tool_call_id", "is not the id of a tool call in a message before")
        asked.update(call.id for call in message.tool_calls)
    return messages


def _message(path: str, value: Any) -> Message:
    if not isinstance(value, dict):
        raise fields.wrong_type(path, "an object", value)
    fields.check_names(f"{path}.", value, NAMES)
    role = _role(f"{path}.role", value.get("role"))
    read = READ.get(role, ("role", "content"))
    for name in NAMES:
        if name not in read and value.get(name) not in (None, [], ""):
            raise bad_field(f"{path}.{name}", "is not supported here; leave it out", "unsupported_parameter")
    if role == "assistant":
        return _assistant(path, value)
    content = _content(f"{path}.content", value.get("content"))
    if role != "tool":
        return Message(role, content)
    if value.get("name") is not None:
        fields.text(f"{path}.name", value["name"])
    return Message(role, content, tool_call_id=_id(f"{path}.tool_call_id", value.get("tool_call_id")))


def _assistant(path: str, value: dict[str, Any]) -> Message:
    """An assistant's turn. One that thought or called need not have said anything."""
    calls = _calls(f"{path}.tool_calls", value.get("tool_calls"))
    thought = value.get("reasoning_content")
    reasoning = "" if thought is None else fields.text(f"{path}.reasoning_content", thought)
    silent = value.get("content") is None and (calls or reasoning)
    content = "" if silent else _content(f"{path}.content", value.get("content"))
    return Message("assistant", content, reasoning, calls)


def _calls(path: str, value: Any) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise fields.wrong_type(path, "a list", value)
    if len(value) > MOST_CALLS:
        raise bad_field(path, f"holds {len(value)} calls; at most {MOST_CALLS} are accepted")
    return tuple(_call(f"{path}[{n}]", item) for n, item in enumerate(value))


def _call(path: str, value: Any) -> ToolCall:
    if not isinstance(value, dict):
        raise fields.wrong_type(path, "an object", value)
    if value.get("type", "function") != "function":
        raise bad_field(f"{path}.type", "should be function; other calls are not supported here")
    # `index` is left over where a client has put a call together from a stream.
    fields.check_names(f"{path}.", value, ("id", "type", "function", "index"))
    function = value.get("function")
    if not isinstance(function, dict):
        raise fields.wrong_type(f"{path}.function", "an object", function)
    fields.check_names(f"{path}.function.", function, ("name", "arguments"))
    return ToolCall(
        _id(f"{path}.id", value.get("id")),
        function_name(f"{path}.function.name", function.get("name")),
        arguments_text(f"{path}.function.arguments", function.get("arguments")),
    )


def _id(path: str, value: Any) -> str:
    given = fields.text(path, value)
    if not 1 <= len(given) <= MAX_CALL_ID_CHARACTERS:
        raise bad_field(path, f"should be 1 to {MAX_CALL_ID_CHARACTERS} characters long")
    return given


def _role(path: str, value: Any) -> Role:
    if not isinstance(value, str):
        raise fields.wrong_type(path, "a string", value)
    if value not in ROLES:
        raise bad_field(path, f"should be one of {', '.join(ROLES)}")
    return ROLES[value]


def _content(path: str, value: Any) -> str:
    if not isinstance(value, list):
        if not isinstance(value, str):
            raise fields.wrong_type(path, "a string or a list of text parts", value)
        return fields.text(path, value)
    if not value:
        raise bad_field(path, "is an empty list")
    return "".join(_part(f"{path}[{n}]", item) for n, item in enumerate(value))


def _part(path: str, value: Any) -> str:
    if not isinstance(value, dict):
        raise fields.wrong_type(path, "an object", value)
    if value.get("type") != "text":
        raise bad_field(f"{path}.type", "should be text; other parts are not supported here")
    fields.check_names(f"{path}.", value, ("type", "text"))
    return fields.text(f"{path}.text", value.get("text"))
