"""The body of a chat request: everything it may hold, and for each field what is refused, by name."""

from __future__ import annotations

from typing import Any

import pytest

from app.contract.limits import MOST_STOP_STRINGS
from app.contract.wire import Message, SamplingParams
from app.web.chat.request import ChatCall, read_chat
from app.web.http.errors import ApiError

MODEL = "zai-org/glm-test"
HELLO = [{"role": "user", "content": "hello"}]


BEGUN = [*HELLO, {"role": "assistant", "content": "Hel"}]
CALLED = {
    "role": "assistant",
    "content": "x",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def read(**body: Any) -> ChatCall:
    return read_chat({"messages": HELLO, **body}, MODEL, "req_1")


def refused(**body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(**body)
    return caught.value


def test_defaults() -> None:
    chat = read()
    assert chat.request.messages == (Message("user", "hello"),)
    assert chat.request.sampling == SamplingParams()
    assert (chat.request.max_tokens, chat.request.stop) == (None, ())
    assert chat.request.logprobs is None and not chat.request.continue_answer
    assert not chat.stream and not chat.include_usage


def test_everything_that_is_read() -> None:
    chat = read(
        model=MODEL, stream=True, stream_options={"include_usage": True}, temperature=0, top_p=1, seed=-3,
        max_completion_tokens=5, stop=["a", "b"], top_k=40, min_p=0.05, repetition_penalty=1.1, presence_penalty=-2,
        frequency_penalty=0.5, logprobs=True, top_logprobs=20,
    )  # fmt: skip
    assert chat.request.sampling == SamplingParams(
        temperature=0.0,
        top_p=1.0,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-2.0,
        frequency_penalty=0.5,
        seed=-3,
    )
    assert chat.request.logprobs == 20
    assert (chat.request.max_tokens, chat.request.stop) == (5, ("a", "b"))
    assert chat.stream and chat.include_usage


def test_an_answer_goes_on_by_vllms_switches() -> None:
    for switches in ({}, {"add_generation_prompt": False}, {"add_generation_prompt": None}):
        chat = read(messages=BEGUN, continue_final_message=True, **switches)
        assert chat.request.continue_answer and chat.request.messages[-1] == Message("assistant", "Hel")
    assert not read(messages=BEGUN, continue_final_message=False).request.continue_answer
    thought = [*HELLO, {"role": "assistant", "content": None, "reasoning_content": "Hm"}]
    assert read(messages=thought, continue_final_message=True).request.messages[-1].reasoning == "Hm"


def test_log_probabilities_and_top_k_off() -> None:
    assert read(logprobs=True).request.logprobs == 0
    assert read(logprobs=True, top_logprobs=3).request.logprobs == 3
    assert read(logprobs=False, top_logprobs=0).request.logprobs is None
    assert [read(top_k=given).request.sampling.top_k for given in (None, -1, 0, 5)] == [None, 0, 0, 5]


def test_messages_in_every_form() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]},
        {"role": "assistant", "content": "", "refusal": None, "annotations": [], "tool_calls": None},
    ]
    expected = (Message("system", "be brief"), Message("user", "你好"), Message("assistant", ""))
    assert read(messages=messages).request.messages == expected


@pytest.mark.parametrize(
    "neutral",
    [
        {"n": 1}, {"logprobs": False}, {"logprobs": None}, {"top_logprobs": 0}, {"presence_penalty": 0},
        {"frequency_penalty": 0.0}, {"logit_bias": {}}, {"tools": []}, {"tool_choice": "none"},
        {"tool_choice": "auto"}, {"functions": []}, {"function_call": "auto"}, {"response_format": {"type": "text"}},
        {"parallel_tool_calls": True}, {"service_tier": "auto"}, {"modalities": ["text"]}, {"store": False},
        {"user": "me"}, {"metadata": {"a": "b"}}, {"top_k": -1}, {"min_p": 0}, {"repetition_penalty": 1.0},
        {"prediction": None}, {"audio": None}, {"reasoning_effort": None}, {"stop": None}, {"stop": []},
        {"model": ""}, {"model": None}, {"temperature": None}, {"seed": None}, {"max_tokens": None},
        {"stream": None}, {"stream_options": None}, {"max_tokens": 3, "max_completion_tokens": 3},
        {"add_generation_prompt": True}, {"continue_final_message": False}, {"continue_final_message": None},
    ],
)  # fmt: skip
def test_neutral_values_are_accepted(neutral: dict[str, Any]) -> None:
    read(**neutral)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": 5}),
    ("stream", {"stream": "true"}),
    ("stream", {"stream": 1}),
    ("stream_options", {"stream": True, "stream_options": []}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("stream_options.include_usage", {"stream": True, "stream_options": {"include_usage": "yes"}}),
    ("stream_options.usage", {"stream": True, "stream_options": {"usage": True}}),
    ("temperature", {"temperature": "0"}),
    ("temperature", {"temperature": True}),
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": 2.1}),
    ("temperature", {"temperature": [1]}),
    ("top_p", {"top_p": 0}),
    ("top_p", {"top_p": 1.01}),
    ("top_p", {"top_p": {}}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": 1.0}),
    ("max_tokens", {"max_tokens": 10**30}),
    ("max_tokens", {"max_tokens": 1, "max_completion_tokens": 2}),
    ("max_completion_tokens", {"max_completion_tokens": "9"}),
    ("max_completion_tokens", {"max_completion_tokens": False}),
    ("seed", {"seed": 1.5}),
    ("seed", {"seed": 2**63}),
    ("stop", {"stop": 5}),
    ("stop", {"stop": ""}),
    ("stop", {"stop": "x" * 257}),
    ("stop", {"stop": ["x"] * (MOST_STOP_STRINGS + 1)}),
    ("stop[1]", {"stop": ["a", None]}),
    ("stop[0]", {"stop": ["\udc00"]}),
    ("user", {"user": 5}),
    ("metadata", {"metadata": "x"}),
    ("parallel_tool_calls", {"parallel_tool_calls": 1}),
    ("service_tier", {"service_tier": []}),
    ("store", {"store": True}),
    ("n", {"n": 2}),
    ("n", {"n": True}),
    ("logprobs", {"logprobs": 0}),
    ("logprobs", {"logprobs": 5}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("top_logprobs", {"top_logprobs": 3, "logprobs": False}),
    ("top_logprobs", {"top_logprobs": 21, "logprobs": True}),
    ("top_logprobs", {"top_logprobs": -1, "logprobs": True}),
    ("top_logprobs", {"top_logprobs": "3", "logprobs": True}),
    ("presence_penalty", {"presence_penalty": 2.01}),
    ("frequency_penalty", {"frequency_penalty": "0"}),
    ("frequency_penalty", {"frequency_penalty": -2.5}),
    ("repetition_penalty", {"repetition_penalty": 0}),
    ("repetition_penalty", {"repetition_penalty": 11}),
    ("repetition_penalty", {"repetition_penalty": True}),
    ("min_p", {"min_p": 1.5}),
    ("min_p", {"min_p": -0.1}),
    ("min_p", {"min_p": []}),
    ("logit_bias", {"logit_bias": {"5": 1}}),
    ("functions", {"functions": [{}]}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("modalities", {"modalities": ["audio"]}),
    ("prediction", {"prediction": {"type": "content"}}),
    ("top_k", {"top_k": -2}),
    ("top_k", {"top_k": 1.0}),
    ("top_k", {"top_k": 2**31}),
    ("continue_final_message", {"continue_final_message": 1}),
    ("continue_final_message", {"continue_final_message": True, "add_generation_prompt": False}),
    ("add_generation_prompt", {"add_generation_prompt": "no"}),
    ("add_generation_prompt", {"add_generation_prompt": False}),
    ("add_generation_prompt", {"messages": BEGUN, "continue_final_message": True, "add_generation_prompt": True}),
    ("messages[1].tool_calls", {"messages": [*HELLO, CALLED], "continue_final_message": True}),
    ("messages", {"messages": None}),
    ("messages", {"messages": "hi"}),
    ("messages", {"messages": []}),
    ("messages[0]", {"messages": ["hi"]}),
    ("messages[0].role", {"messages": [{"content": "x"}]}),
    ("messages[0].role", {"messages": [{"role": "function", "content": "x"}]}),
    ("messages[0].role", {"messages": [{"role": ["user"], "content": "x"}]}),
    ("messages[1].content", {"messages": [*HELLO, {"role": "user"}]}),
    ("messages[1].content", {"messages": [*HELLO, {"role": "assistant", "content": None}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": []}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": "\ud83d"}]}),
    ("messages[0].content[0]", {"messages": [{"role": "user", "content": ["x"]}]}),
    ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ("messages[0].content[0].text", {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}),
    ("messages[0].content[0].x", {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}]}),
    ("messages[0].name", {"messages": [{"role": "user", "content": "x", "name": "Ann"}]}),
    ("messages[0].tool_calls", {"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}),
    (
        "messages[0].function_call",
        {"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
    ),
    ("messages[0].cotnent", {"messages": [{"role": "user", "cotnent": "x"}]}),
]


@pytest.mark.parametrize(("param", "body"), BAD, ids=[f"{n}-{param}" for n, (param, _) in enumerate(BAD)])
def test_bad_values_are_named(param: str, body: dict[str, Any]) -> None:
    error = refused(**body)
    assert (error.status, error.param) == (400, param)
    assert error.message.startswith(param)
    error.message.encode("utf-8")


def test_unknown_field_names_the_nearest() -> None:
    error = refused(max_token=5)
    assert (error.status, error.param, error.code) == (400, "max_token", "unknown_parameter")
    assert "did you mean max_tokens?" in error.message


def test_long_names_and_odd_characters_do_not_flood_the_message() -> None:
    error = refused(**{"\ud800" + "x" * 10_000: 1})
    assert error.param is not None and len(error.param) < 100
    error.message.encode("utf-8")


def test_other_model_is_a_404_as_at_openai() -> None:
    error = refused(model="gpt-4o")
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
