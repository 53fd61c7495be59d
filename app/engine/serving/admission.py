"""What a request must be to be taken in; everything here is told to the client by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from app.contract.codec import ContractError, from_json
from app.contract.wire import ChatRequest, DetokenizeRequest, EngineRequest, Failed, SamplingParams, TokenizeRequest
from app.engine.backend.interface import MOST_LOGPROBS
from app.engine.errors import RequestError

SAMPLING_LIMITS: Mapping[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, False),
    "top_p": (0, 1, True),
    "top_k": (0, 2**31 - 1, False),
    "min_p": (0, 1, False),
    "repetition_penalty": (0, 10, True),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
}
"""The least and the most, and whether it must be above the least."""


def read_request(line: bytes) -> EngineRequest:
    """Parses and checks one request line. Raises RequestError."""
    try:
        request: EngineRequest = from_json(EngineRequest, json.loads(line), "request")  # type: ignore[arg-type]
    except (ContractError, ValueError, RecursionError) as error:
        raise RequestError(Failed(400, "invalid_request", f"the request cannot be read: {error}")) from error
    if isinstance(request, ChatRequest):
        _check_chat(request)
    elif isinstance(request, TokenizeRequest):
        one = bool(request.messages) != (request.prompt is not None)
        _check(one, "messages", "either messages or a prompt is needed, not both")
    return request


def check_ids(request: DetokenizeRequest, limit: int) -> None:
    """Raises RequestError for the first id that is not below `limit`, the tokenizer's."""
    for place, token in enumerate(request.tokens):
        text = f"tokens[{place}] is {token}; this model's tokenizer has ids from 0 to {limit - 1}"
        _check(0 <= token < limit, "tokens", text)


def _check_chat(request: ChatRequest) -> None:
    _check(bool(request.messages), "messages", "at least one message is needed")
    choice = request.tool_choice
    if choice.mode == "required":
        _check(bool(request.tools), "tool_choice", "tool_choice asks for a call, but there are no tools")
    if choice.name is not None:
        _check(choice.mode == "required", "tool_choice", "tool_choice names a tool without asking for a call")
        known = any(tool.name == choice.name for tool in request.tools)
        _check(known, "tool_choice", f"tool_choice names {choice.name[:80]!r}, which is none of the tools")
    _check_sampling(request.sampling)
    given = request.logprobs
    _check(given is None or 0 <= given <= MOST_LOGPROBS, "top_logprobs", f"0 to {MOST_LOGPROBS} are possible")
    _check(request.max_tokens is None or request.max_tokens >= 1, "max_tokens", "max_tokens must be at least 1")


def _check_sampling(sampling: SamplingParams) -> None:
    for name, (low, high, open_low) in SAMPLING_LIMITS.items():
        value = getattr(sampling, name)
        if value is not None:
            fine = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
            text = f"{name} is {value:g}; it must be {'above' if open_low else 'at least'} {low:g} and at most {high:g}"
            _check(fine, name, text)


def new_token_limit(prompt_tokens: int, max_tokens: int | None, max_model_len: int) -> int:
    """How many tokens the answer may have.

    Raises:
        RequestError: the prompt, or the prompt and the answer asked for, do not fit; the largest that would is named.
            A prompt of nothing cannot be continued either.
    """
    if prompt_tokens < 1:
        text = "the model's chat format makes nothing of these messages: there is no token to answer to"
        raise RequestError(Failed(400, "invalid_conversation", text, param="messages"))
    room = max_model_len - prompt_tokens
    if room < 1:
        text = (
            f"the messages are {prompt_tokens} tokens long; this model's context of {max_model_len} tokens "
            f"takes at most {max_model_len - 1} and an answer"
        )
        raise RequestError(Failed(400, "context_length_exceeded", text, param="messages"))
    if max_tokens is not None and max_tokens > room:
        text = (
            f"max_tokens is {max_tokens}; behind a prompt of {prompt_tokens} tokens at most {room} "
            f"fit into the context of {max_model_len}"
        )
        raise RequestError(Failed(400, "context_length_exceeded", text, param="max_tokens"))
    return room if max_tokens is None else max_tokens


def _check(fine: bool, param: str, message: str) -> None:
    if not fine:
        raise RequestError(Failed(400, "invalid_value", message, param=param))
