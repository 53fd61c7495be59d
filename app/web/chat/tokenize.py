"""The bodies of POST /tokenize and POST /detokenize, in vLLM's shape, checked field by field."""

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

ONLY: dict[str, bool] = {
    "add_generation_prompt": True,
    "continue_final_message": False,
    "add_special_tokens": False,
    "return_token_strs": False,
}
"""Fields of vLLM's of which only one value is what the service itself does."""
CHAT_ONLY = ("tools", "chat_template_kwargs", "reasoning_effort", "add_generation_prompt", "continue_final_message")


def read_tokenize(body: dict[str, Any], model_name: str, request_id: str) -> TokenizeRequest:
    """Checks the whole body: a conversation with what belongs to one, or a plain prompt.

    Raises:
        ApiError: 404 for another model, else 400 naming the field.
    """
    check_model(body.get("model"), model_name)
    fields.check_names("", body, ("model", "messages", "prompt", *CHAT_ONLY, *ONLY))
    for name, only in ONLY.items():
        given = body.get(name)
        if given is not None and fields.boolean(name, given) is not only:
            raise bad_field(name, f"is supported as {str(only).lower()} only; leave it out", "unsupported_parameter")
    if body.get("prompt") is None:
        messages, tools = read_messages(body.get("messages")), read_tools(body.get("tools"))
        return TokenizeRequest(request_id, messages, tools=tools, enable_thinking=read_thinking(body))
    for name in ("messages", *CHAT_ONLY):
        if body.get(name) is not None:
            raise bad_field(name, "does not go with prompt; send the one or the other")
    return TokenizeRequest(request_id, prompt=fields.text("prompt", body["prompt"]))


def read_detokenize(body: dict[str, Any], model_name: str, request_id: str) -> DetokenizeRequest:
    """Checks the whole body; whether the model has such ids the engine knows.

    Raises:
        ApiError: 404 for another model, else 400 naming the field.
    """
    check_model(body.get("model"), model_name)
    fields.check_names("", body, ("model", "tokens"))
    tokens = body.get("tokens")
    if not isinstance(tokens, list):
        raise fields.wrong_type("tokens", "a list of integers", tokens)
    if len(tokens) > MOST_TOKENIZE_IDS:
        raise bad_field("tokens", f"holds {len(tokens)} ids; at most {MOST_TOKENIZE_IDS} are accepted")
    for n, token in enumerate(tokens):
        if fields.integer(f"tokens[{n}]", token, 0, MAX_INTEGER) is None:
            raise fields.wrong_type(f"tokens[{n}]", "an integer", token)
    return DetokenizeRequest(request_id, tuple(tokens))
