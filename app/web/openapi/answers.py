"""JSON Schema of responses in OpenAI's or vLLM's shape, and of the error."""

from __future__ import annotations

import typing

from app.contract.json_schema import Schema
from app.contract.status import Phase
from app.contract.wire import FinishReason

_TEXT: Schema = {"type": "string"}
_OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NULL: Schema = {"type": "null"}


def _object(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _const(value: str) -> Schema:
    return {"const": value}


_FINISH: Schema = {"enum": list(typing.get_args(FinishReason))}
_FUNCTION = _object({"name": _TEXT, "arguments": _TEXT})
_CALL = _object({"id": _TEXT, "type": _const("function"), "function": _FUNCTION})
_CALL_DELTA = _object(
    {
        "index": _COUNT,
        "id": _TEXT,
        "type": _const("function"),
        "function": _object({"name": _TEXT, "arguments": _TEXT}, ("name",)),
    },
    ("id", "type"),
)
_MESSAGE = _object(
    {
        "role": _const("assistant"),
        "content": _OPTIONAL_TEXT,
        "refusal": {"type": "null"},
        "reasoning_content": _TEXT,
        "tool_calls": _list(_CALL),
    },
    ("reasoning_content", "tool_calls"),
)
_DELTA = _object(
    {
        "role": _const("assistant"),
        "content": _OPTIONAL_TEXT,
        "refusal": {"type": "null"},
        "reasoning_content": _TEXT,
        "tool_calls": _list(_CALL_DELTA),
    },
    ("role", "content", "refusal", "reasoning_content", "tool_calls"),
)
_USAGE = _object(
    {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
        "prompt_tokens_details": _object({"cached_tokens": _COUNT}),
    }
)
_TOKEN: dict[str, Schema] = {"token": _TEXT, "logprob": {"type": "number"}, "bytes": _list(_COUNT)}
_LOGPROBS: Schema = {
    "anyOf": [
        _object({"content": _list(_object({**_TOKEN, "top_logprobs": _list(_object(_TOKEN))})), "refusal": _NULL}),
        _NULL,
    ]
}
_HEAD: dict[str, Schema] = {"id": _TEXT, "created": _COUNT, "model": _TEXT, "system_fingerprint": _OPTIONAL_TEXT}
_MODEL = _object(
    {
        "id": _TEXT,
        "object": _const("model"),
        "created": _COUNT,
        "owned_by": _TEXT,
        "max_model_len": {"type": ["integer", "null"]},
    }
)

SCHEMAS: dict[str, Schema] = {
    "Error": _object(
        {"error": _object({"message": _TEXT, "type": _TEXT, "param": _OPTIONAL_TEXT, "code": _OPTIONAL_TEXT})}
    ),
    "Live": _object({"status": _const("ok")}),
    "Readiness": _object(
        {
            "phase": {"enum": list(typing.get_args(Phase))},
            "progress": {"anyOf": [{"$ref": "#/components/schemas/Progress"}, {"type": "null"}]},
            "message": _TEXT,
        }
    ),
    "ServedModel": _MODEL,
    "ServedModels": _object({"object": _const("list"), "data": _list({"$ref": "#/components/schemas/ServedModel"})}),
    "ChatCompletion": _object(
        {
            **_HEAD,
            "object": _const("chat.completion"),
            "choices": _list(
                _object({"index": _COUNT, "message": _MESSAGE, "logprobs": _LOGPROBS, "finish_reason": _FINISH})
            ),
            "usage": _USAGE,
        }
    ),
    "ChatCompletionChunk": _object(
        {
            **_HEAD,
            "object": _const("chat.completion.chunk"),
            "choices": _list(
                _object(
                    {
                        "index": _COUNT,
                        "delta": _DELTA,
                        "logprobs": _LOGPROBS,
                        "finish_reason": {"anyOf": [_FINISH, {"type": "null"}]},
                    }
                )
            ),
            "usage": {"anyOf": [_USAGE, {"type": "null"}]},
        },
        ("usage",),
    ),
    "Tokens": _object({"count": _COUNT, "max_model_len": _COUNT, "tokens": _list({"type": "integer"})}),
    "Prompt": _object({"prompt": _TEXT}),
}
