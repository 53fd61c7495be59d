"""The body of POST /v1/chat/completions, checked field by field and turned into the engine's request.

Every field of OpenAI's is in one of three tables: it is read, or it cannot change the answer and is accepted,
or only its neutral value is accepted. Anything else is a 400 that names the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.contract.limits import (
    MAX_INTEGER,
    MAX_STOP_CHARACTERS,
    MAX_TOKENS_RANGE,
    MOST_LOGPROBS,
    MOST_STOP_STRINGS,
    SAMPLING_RANGES,
    Range,
)
from app.contract.wire import ChatRequest, Message, SamplingParams
from app.web.chat.messages import read_messages
from app.web.chat.thinking import read_thinking
from app.web.chat.tools import read_tool_choice, read_tools
from app.web.http import fields
from app.web.http.errors import ApiError, bad_field

RANGES: dict[str, Range] = {
    **SAMPLING_RANGES,
    "top_k": Range(-1, MAX_INTEGER, whole=True),  # vLLM's word for off is -1
    "max_tokens": MAX_TOKENS_RANGE,
    "max_completion_tokens": MAX_TOKENS_RANGE,
}
"""Of every field that is a number."""

READ = (
    *RANGES, "messages", "model", "stream", "stream_options", "stop", "logprobs", "top_logprobs",
    "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_effort",
    "continue_final_message", "add_generation_prompt",
)  # fmt: skip

WITHOUT_EFFECT: dict[str, type] = {
    "user": str,
    "metadata": dict,
    "service_tier": str,
    "safety_identifier": str,
    "prompt_cache_key": str,
    "prompt_cache_retention": str,
}

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "store": (False,),
    "logit_bias": ({},),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "audio": (),
    "moderation": (),
    "prediction": (),
    "web_search_options": (),
}


@dataclass(frozen=True)
class ChatCall:
    """What the client asked for: the engine's part, and how the answer is to be written."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    one_call: bool
    """At most one tool call: `parallel_tool_calls` is false."""


def read_chat(body: dict[str, Any], model_name: str, request_id: str) -> ChatCall:
    """Checks the whole body.

    Raises:
        ApiError: 404 for another model, else 400 naming the field.
    """
    check_model(body.get("model"), model_name)
    fields.check_names("", body, (*READ, *WITHOUT_EFFECT, *NEUTRAL))
    _check_ignored(body)
    stream = fields.boolean("stream", body.get("stream"))
    tools = read_tools(body.get("tools"))
    messages = read_messages(body.get("messages"))
    request = ChatRequest(
        request_id=request_id,
        messages=messages,
        sampling=_sampling(body),
        max_tokens=_max_tokens(body),
        stop=_stop(body.get("stop")),
        tools=tools,
        tool_choice=read_tool_choice(body.get("tool_choice"), tools),
        enable_thinking=read_thinking(body),
        logprobs=_logprobs(body),
        continue_answer=_continues(body, messages),
    )
    return ChatCall(request, stream, _include_usage(body.get("stream_options"), stream), _one_call(body))


def check_model(given: Any, served: str) -> None:
    """A request may name the served model, or none; any other is OpenAI's 404."""
    if given is None or given == "":
        return
    if fields.text("model", given) != served:
        raise model_not_found(given, "model")


def model_not_found(name: str, param: str | None) -> ApiError:
    """The 404 that OpenAI gives for a model it doesn't have."""
    return ApiError(
        404, f"The model {name[:200]!r} is not served here; GET /v1/models names it.", "model_not_found", param
    )


def _sampling(body: dict[str, Any]) -> SamplingParams:
    top_k = _integer(body, "top_k")
    return SamplingParams(
        temperature=_number(body, "temperature"),
        top_p=_number(body, "top_p"),
        top_k=0 if top_k == -1 else top_k,  # off, in vLLM's words
        min_p=_number(body, "min_p"),
        repetition_penalty=_number(body, "repetition_penalty"),
        presence_penalty=_number(body, "presence_penalty"),
        frequency_penalty=_number(body, "frequency_penalty"),
        seed=_integer(body, "seed"),
    )


def _logprobs(body: dict[str, Any]) -> int | None:
    asked = fields.boolean("logprobs", body.get("logprobs"))
    count = fields.integer("top_logprobs", body.get("top_logprobs"), 0, MOST_LOGPROBS) or 0
    if count and not asked:
        raise bad_field("top_logprobs", "needs logprobs to be true")
    return count if asked else None


def _continues(body: dict[str, Any], messages: tuple[Message, ...]) -> bool:
    """vLLM's switches: a broken-off answer goes on instead of a new one's beginning, so not both can be true."""
    going_on = fields.boolean("continue_final_message", body.get("continue_final_message"))
    anew = body.get("add_generation_prompt")
    if anew is not None and fields.boolean("add_generation_prompt", anew) is going_on:
        word = "false or left out" if going_on else "true or left out unless continue_final_message is true"
        raise bad_field("add_generation_prompt", f"should be {word}")
    if going_on and messages[-1].role != "assistant":
        raise bad_field("continue_final_message", "is true, but the last message is not an assistant's")
    if going_on and messages[-1].tool_calls:
        text = "the answer called tools, so it is complete and can't go on"
        raise bad_field(f"messages[{len(messages) - 1}].tool_calls", text, "unsupported_value")
    return going_on


def _number(body: dict[str, Any], name: str) -> float | None:
    bounds = RANGES[name]
    return fields.number(name, body.get(name), bounds.low, bounds.high, open_low=bounds.open_low)


def _integer(body: dict[str, Any], name: str) -> int | None:
    bounds = RANGES[name]
    return fields.integer(name, body.get(name), int(bounds.low), int(bounds.high))


def _check_ignored(body: dict[str, Any]) -> None:
    for name, kind in WITHOUT_EFFECT.items():
        value = body.get(name)
        if value is not None and type(value) is not kind:
            raise fields.wrong_type(name, fields.NAMES[kind], value)
    for name, neutral in NEUTRAL.items():
        value = body.get(name)
        if value is not None and not any(_same(value, item) for item in neutral):
            raise bad_field(name, f"is not supported here{_instead(neutral)}", "unsupported_parameter")


def _same(value: Any, neutral: Any) -> bool:
    # True equals 1 in Python, but `"n": true` is a mistake.
    return isinstance(value, bool) == isinstance(neutral, bool) and bool(value == neutral)


def _instead(neutral: tuple[Any, ...]) -> str:
    return f"; leave it out or send {neutral[0]!r}" if neutral else "; leave it out"


def _one_call(body: dict[str, Any]) -> bool:
    given = body.get("parallel_tool_calls")
    return given is not None and not fields.boolean("parallel_tool_calls", given)


def _max_tokens(body: dict[str, Any]) -> int | None:
    old, new = (_integer(body, name) for name in ("max_tokens", "max_completion_tokens"))
    if old is not None and new is not None and old != new:
        raise bad_field("max_tokens", "differs from max_completion_tokens; send one of them")
    return new if new is not None else old


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (str, list)):
        raise fields.wrong_type("stop", "a string or a list of strings", value)
    items = [("stop", value)] if isinstance(value, str) else [(f"stop[{n}]", item) for n, item in enumerate(value)]
    if len(items) > MOST_STOP_STRINGS:
        raise bad_field("stop", f"holds {len(items)} strings; at most {MOST_STOP_STRINGS} are accepted")
    for path, item in items:
        if not fields.text(path, item):
            raise bad_field(path, "is empty")
        if len(item) > MAX_STOP_CHARACTERS:
            raise bad_field(path, f"is longer than {MAX_STOP_CHARACTERS} characters")
    return tuple(item for _, item in items)


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict):
        raise fields.wrong_type("stream_options", "an object", value)
    if not stream:
        raise bad_field("stream_options", "is only allowed when stream is true")
    fields.check_names("stream_options.", value, ("include_usage", "include_obfuscation"))
    # Obfuscation pads chunks against eavesdroppers on OpenAI's side; it is no part of the answer.
    fields.boolean("stream_options.include_obfuscation", value.get("include_obfuscation"))
    return fields.boolean("stream_options.include_usage", value.get("include_usage"))
