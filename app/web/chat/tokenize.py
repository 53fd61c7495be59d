"""Reads the bodies of POST /tokenize and POST /detokenize, in vLLM's shape."""

from __future__ import annotations

from typing import Any

from app.contract.limits import MAX_INTEGER, MOST_TOKENIZE_IDS
from app.contract.wire import DetokenizeRequest, TokenizeRequest
from app.web.chat.messages import read_messages
from app.web.chat.request import check_model
from app.web.chat.thinking import read_thinking
from app.web.chat.tools import read_tools
from app.web.http import fields
from app.web.http.errors import bad_field

FIXED_VALUES: dict[str, bool] = {
    "add_generation_prompt": True,
    "continue_final_message": False,
    "add_special_tokens": False,
    "return_token_strs": False,
}
"""vLLM's fields that have only one supported value."""
CONVERSATION_FIELDS = (
    "tools",
    "chat_template_kwargs",
    "reasoning_effort",
    "add_generation_prompt",
    "continue_final_message",
)


def read_tokenize(body: dict[str, Any], model_name: str, request_id: str) -> TokenizeRequest:
    """Reads and checks the whole body: a conversation with its options, or a plain prompt.

    Raises:
        ApiError: 404 for another model, else 400 that names the field.
    """
    check_model(body.get("model"), model_name)
    fields.check_names("", body, ("model", "messages", "prompt", *CONVERSATION_FIELDS, *FIXED_VALUES))
    for name, only in FIXED_VALUES.items():
        value = body.get(name)
        if value is not None and fields.boolean(name, value) is not only:
            raise bad_field(name, f"only supports {str(only).lower()}; leave it out", "unsupported_parameter")
    if body.get("prompt") is None:
        messages, tools = read_messages(body.get("messages")), read_tools(body.get("tools"))
        return TokenizeRequest(request_id, messages, tools=tools, enable_thinking=read_thinking(body))
    for name in ("messages", *CONVERSATION_FIELDS):
        if body.get(name) is not None:
            raise bad_field(name, "can't be combined with prompt; send one of them")
    return TokenizeRequest(request_id, prompt=fields.text("prompt", body["prompt"]))


def read_detokenize(body: dict[str, Any], model_name: str, request_id: str) -> DetokenizeRequest:
    """Reads and checks the whole body. The engine checks whether the model has these ids.

    Raises:
        ApiError: 404 for another model, else 400 that names the field.
    """
    check_model(body.get("model"), model_name)
    fields.check_names("", body, ("model", "tokens"))
    tokens = body.get("tokens")
    if not isinstance(tokens, list):
        raise fields.wrong_type("tokens", "a list of integers", tokens)
    if len(tokens) > MOST_TOKENIZE_IDS:
        raise bad_field("tokens", f"has {len(tokens)} ids; at most {MOST_TOKENIZE_IDS} are accepted")
    for n, token in enumerate(tokens):
        if fields.integer(f"tokens[{n}]", token, 0, MAX_INTEGER) is None:
            raise fields.wrong_type(f"tokens[{n}]", "an integer", token)
    return DetokenizeRequest(request_id, tuple(tokens))
