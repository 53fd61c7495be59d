"""Checks requests before they are admitted. Each refusal names the field."""

from __future__ import annotations

import json

from app.contract.codec import ContractError, from_json
from app.contract.limits import MOST_LOGPROBS, SAMPLING_RANGES
from app.contract.wire import ChatRequest, DetokenizeRequest, EngineRequest, Failed, SamplingParams, TokenizeRequest
from app.engine.errors import RequestError


def read_request(line: bytes) -> EngineRequest:
    """Parses and checks one request line. Raises RequestError."""
    try:
        request: EngineRequest = from_json(EngineRequest, json.loads(line), "request")  # type: ignore[arg-type]
    except (ContractError, ValueError, RecursionError) as error:
        raise RequestError(Failed(400, "invalid_request", f"the request cannot be read: {error}")) from error
    if isinstance(request, ChatRequest):
        _check_chat(request)
    elif isinstance(request, TokenizeRequest):
        exactly_one = bool(request.messages) != (request.prompt is not None)
        _check(exactly_one, "messages", "either messages or a prompt is needed, not both")
    return request


def check_ids(request: DetokenizeRequest, limit: int) -> None:
    """Raises RequestError for the first id that is not below `limit`, the tokenizer's."""
    for index, token in enumerate(request.tokens):
        text = f"tokens[{index}] is {token}; this model's tokenizer has ids from 0 to {limit - 1}"
        _check(0 <= token < limit, "tokens", text)


def _check_chat(request: ChatRequest) -> None:
    _check(bool(request.messages), "messages", "at least one message is needed")
    choice = request.tool_choice
    if choice.mode == "required":
        _check(bool(request.tools), "tool_choice", "tool_choice requires a call, but there are no tools")
    if choice.name is not None:
        _check(choice.mode == "required", "tool_choice", "tool_choice names a tool without requiring a call")
        known = any(tool.name == choice.name for tool in request.tools)
        _check(known, "tool_choice", f"tool_choice names {choice.name[:80]!r}, which is not one of the tools")
    _check_sampling(request.sampling)
    logprobs = request.logprobs
    in_range = logprobs is None or 0 <= logprobs <= MOST_LOGPROBS
    _check(in_range, "top_logprobs", f"top_logprobs must be from 0 to {MOST_LOGPROBS}")
    _check(request.max_tokens is None or request.max_tokens >= 1, "max_tokens", "max_tokens must be at least 1")


def _check_sampling(sampling: SamplingParams) -> None:
    for name, bounds in SAMPLING_RANGES.items():
        value = getattr(sampling, name)
        if value is not None and name != "seed":  # any integer is a seed: `SamplingDefaults.resolve` wraps it
            least = f"{'above' if bounds.open_low else 'at least'} {bounds.low:g}"
            _check(bounds.holds(value), name, f"{name} is {value:g}; it must be {least} and at most {bounds.high:g}")


def new_token_limit(prompt_tokens: int, max_tokens: int | None, max_model_len: int) -> int:
    """How many tokens the answer may have.

    Raises:
        RequestError: the prompt, or the prompt and `max_tokens`, do not fit; the message names the most that would.
            An empty prompt cannot be continued either.
    """
    if prompt_tokens < 1:
        text = "these messages give an empty prompt in the model's chat format: there is nothing to continue"
        raise RequestError(Failed(400, "invalid_conversation", text, param="messages"))
    limit = max_model_len - prompt_tokens
    if limit < 1:
        text = (
            f"the messages are {prompt_tokens} tokens long; this model's context of {max_model_len} tokens "
            f"takes at most {max_model_len - 1} and an answer"
        )
        raise RequestError(Failed(400, "context_length_exceeded", text, param="messages"))
    if max_tokens is not None and max_tokens > limit:
        text = (
            f"max_tokens is {max_tokens}; after a prompt of {prompt_tokens} tokens at most {limit} "
            f"fit into the context of {max_model_len}"
        )
        raise RequestError(Failed(400, "context_length_exceeded", text, param="max_tokens"))
    return limit if max_tokens is None else max_tokens


def _check(valid: bool, param: str, message: str) -> None:
    if not valid:
        raise RequestError(Failed(400, "invalid_value", message, param=param))
