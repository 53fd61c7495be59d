"""JSON Schema of the bodies of /v1/chat/completions, /tokenize and /detokenize, from the tables that check them."""

from __future__ import annotations

from typing import Any

from app.contract import limits
from app.contract.json_schema import Schema
from app.contract.limits import Range
from app.web.chat import messages as chat_messages
from app.web.chat import request, thinking, tokenize, tools

_NAMES_BY_TYPE = {str: "string", dict: "object", bool: "boolean", int: "integer", float: "number", list: "array"}
_TEXT: Schema = {"type": "string"}
_SWITCH: Schema = {"type": ["boolean", "null"]}
_NULL: Schema = {"type": "null"}
_EMPTY: Schema = {"enum": [None, [], ""]}
"""What OpenAI's replies carry in fields that say nothing; clients send them back."""


def chat_body() -> Schema:
    """Of POST /v1/chat/completions: every field there is; one more is refused."""
    neutral = {name: {"enum": [*values, None]} for name, values in request.NEUTRAL.items()}
    ignored = {name: {"type": [_NAMES_BY_TYPE[kind], "null"]} for name, kind in request.WITHOUT_EFFECT.items()}
    numbers = {name: number(bounds) for name, bounds in request.RANGES.items()}
    return _object({**_READ_FIELDS, **numbers, **ignored, **neutral}, "messages")


def tokenize_body() -> Schema:
    """Of POST /tokenize: a conversation, or a plain prompt."""
    flags = {name: {"enum": [only, None]} for name, only in tokenize.ONLY.items()}
    chat = {name: _READ_FIELDS[name] for name in tokenize.CHAT_ONLY if name not in flags}
    model = {"model": _READ_FIELDS["model"]}
    asked = {**model, **flags, **chat, "messages": {"$ref": "#/components/schemas/Messages"}, "prompt": _NULL}
    without = dict.fromkeys(("messages", *tokenize.CHAT_ONLY), _NULL)
    return {"anyOf": [_object(asked, "messages"), _object({**model, **flags, **without, "prompt": _TEXT}, "prompt")]}


def detokenize_body() -> Schema:
    """Of POST /detokenize."""
    ids = {"type": "integer", "minimum": 0, "maximum": limits.MAX_INTEGER}
    tokens = {"type": "array", "items": ids, "maxItems": limits.MOST_TOKENIZE_IDS}
    return _object({"model": _READ_FIELDS["model"], "tokens": tokens}, "tokens")


def messages() -> Schema:
    """The conversation: system messages, questions, answers, and what the tools gave back."""
    kinds = [_message([role for role in chat_messages.ROLES if role not in chat_messages.READ], content=_CONTENT)]
    kinds.append(
        _message(
            ["assistant"],
            optional=("content",),
            content={"anyOf": [*_CONTENT["anyOf"], _NULL]},
            reasoning_content={"type": ["string", "null"]},
            tool_calls=_nullable({"type": "array", "items": _CALL, "maxItems": limits.MOST_CALLS}),
        )
    )
    kinds.append(_message(["tool"], optional=("name",), content=_CONTENT, tool_call_id=_ID, name=_nullable(_TEXT)))
    return {"type": "array", "items": {"anyOf": kinds}, "minItems": 1, "maxItems": limits.MOST_MESSAGES}


def _message(roles: list[str], optional: tuple[str, ...] = (), **read: Schema) -> Schema:
    properties = {**dict.fromkeys(chat_messages.NAMES, _EMPTY), "role": {"enum": roles}, **read}
    nullable = ("reasoning_content", "tool_calls", *optional)
    return _object(properties, "role", *(name for name in read if name not in nullable))


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def number(bounds: Range) -> Schema:
    """Of a number that may be left out."""
    low = "exclusiveMinimum" if bounds.open_low else "minimum"
    return {"type": ["integer" if bounds.whole else "number", "null"], low: bounds.low, "maximum": bounds.high}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


_ID: Schema = {"type": "string", "minLength": 1, "maxLength": limits.MAX_CALL_ID_CHARACTERS}
_PART = _object({"type": {"const": "text"}, "text": _TEXT}, "type", "text")
_CONTENT: dict[str, Any] = {"anyOf": [_TEXT, {"type": "array", "items": _PART, "minItems": 1}]}
_FUNCTION_NAME: Schema = {"type": "string", "pattern": f"^{limits.FUNCTION_NAME.pattern}$"}
_ARGUMENTS: Schema = {**_TEXT, "description": "A JSON object as text.", "contentMediaType": "application/json"}
_CALL = _object(
    {
        "id": _ID,
        "type": {"const": "function"},
        "function": _object({"name": _FUNCTION_NAME, "arguments": _ARGUMENTS}, "name", "arguments"),
        "index": {},
    },
    "id",
    "function",
)
_FUNCTION = _object(
    {
        "name": _FUNCTION_NAME,
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"], "description": "JSON Schema of the arguments."},
        "strict": _SWITCH,
    },
    "name",
)
_TOOL = _object({"type": {"const": "function"}, "function": _FUNCTION}, "type", "function")
_CHOICE = _object(
    {"type": {"const": "function"}, "function": _object({"name": _FUNCTION_NAME}, "name")}, "type", "function"
)
_STOP: Schema = {"type": "string", "minLength": 1, "maxLength": limits.MAX_STOP_CHARACTERS}
_READ_FIELDS: dict[str, Schema] = {
    "messages": {"$ref": "#/components/schemas/Messages"},
    "model": {"type": ["string", "null"], "description": "The served model's id, or none."},
    "stream": _SWITCH,
    "stream_options": {
        **_nullable(_object({"include_usage": _SWITCH, "include_obfuscation": _SWITCH})),
        "description": "Only where stream is true.",
    },
    "stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": limits.MOST_STOP_STRINGS}, _NULL]},
    "logprobs": _SWITCH,
    "top_logprobs": {
        **number(Range(0, limits.MOST_LOGPROBS, whole=True)),
        "description": "Above 0 only where logprobs is true.",
    },
    "continue_final_message": {**_SWITCH, "description": "The last message is an assistant's, and its answer goes on."},
    "add_generation_prompt": {**_SWITCH, "description": "The opposite of continue_final_message, or left out."},
    "tools": _nullable({"type": "array", "items": _TOOL, "maxItems": limits.MOST_TOOLS}),
    "tool_choice": {"anyOf": [{"enum": list(tools.MODES)}, _CHOICE, _NULL]},
    "parallel_tool_calls": _SWITCH,
    "chat_template_kwargs": _nullable(_object({"enable_thinking": _SWITCH})),
    "reasoning_effort": {"enum": [*thinking.EFFORTS, None]},
}
"""Those of the fields that are read which are no bare numbers."""
