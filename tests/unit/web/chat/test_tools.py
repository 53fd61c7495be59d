"""Tools, tool choice, calls and their results, thinking, and the bodies of /tokenize and /detokenize."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.contract import limits
from app.contract.wire import DetokenizeRequest, Message, TokenizeRequest, Tool, ToolCall, ToolChoice
from app.web.chat.request import ChatCall, read_chat
from app.web.chat.tokenize import read_detokenize, read_tokenize
from app.web.http.errors import ApiError

MODEL = "zai-org/glm-test"
HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "name": "get_weather",
    "description": "查天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "晴"}


def read(**body: Any) -> ChatCall:
    return read_chat({"messages": HELLO, **body}, MODEL, "req_1")


def function(**changes: Any) -> list[Any]:
    return [{"type": "function", "function": {**WEATHER, **changes}}]


def call(**changes: Any) -> list[Any]:
    return [*HELLO, {**CALLING, "tool_calls": [{**CALL, **changes}]}]


def called(**changes: Any) -> list[Any]:
    return call(function={**CALL["function"], **changes})  # type: ignore[dict-item]


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"items": value}
    return value


def test_functions_reach_the_model_as_they_were_written() -> None:
    tool = read(tools=function(strict=True)).request.tools[0]
    assert tool.name == "get_weather"
    assert list(json.loads(tool.function).items()) == list(WEATHER.items())
    assert "查天气" in tool.function
    assert read(tools=[{"type": "function", "function": {"name": "f"}}]).request.tools == (Tool("f", '{"name": "f"}'),)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, ToolChoice("auto")),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "get_weather"}}, ToolChoice("required", "get_weather")),
    ],
)
def test_tool_choice(given: Any, meant: ToolChoice) -> None:
    assert read(tools=TOOLS, tool_choice=given).request.tool_choice == meant


def test_calls_and_results_come_back_in() -> None:
    parts = {**RESULT, "name": "get_weather", "content": [{"type": "text", "text": "晴"}]}
    for result in (RESULT, parts):
        assert read(messages=[*HELLO, CALLING, result]).request.messages[1:] == (
            Message("assistant", "", tool_calls=(ToolCall("call_1", "get_weather", '{"city": "北京"}'),)),
            Message("tool", "晴", tool_call_id="call_1"),
        )


def test_a_reply_is_taken_back_as_the_official_client_dumps_it() -> None:
    dumped = {
        "role": "assistant", "content": None, "refusal": None, "annotations": None, "audio": None,
        "function_call": None, "reasoning_content": "Hm.", "tool_calls": [{**CALL, "index": 0}],
    }  # fmt: skip
    message = read(messages=[*HELLO, dumped, RESULT]).request.messages[1]
    assert (message.reasoning, message.tool_calls[0].id) == ("Hm.", "call_1")
    only_thought = {"role": "assistant", "content": None, "reasoning_content": "Hm."}
    assert read(messages=[*HELLO, only_thought]).request.messages[1] == Message("assistant", "", "Hm.")


def test_a_call_without_arguments_is_one_with_none() -> None:
    assert read(messages=called(arguments="")).request.messages[1].tool_calls[0].arguments == "{}"


@pytest.mark.parametrize(
    ("body", "thinking"),
    [
        ({}, None),
        ({"chat_template_kwargs": {}}, None),
        ({"chat_template_kwargs": {"enable_thinking": None}}, None),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "high"}, None),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}, False),
    ],
)
def test_thinking(body: dict[str, Any], thinking: bool | None) -> None:
    assert read(**body).request.enable_thinking is thinking


def test_one_call_at_a_time() -> None:
    assert read(parallel_tool_calls=False).one_call
    assert not read(parallel_tool_calls=True).one_call and not read(parallel_tool_calls=None).one_call


BAD: list[tuple[str, dict[str, Any]]] = [
    ("tools", {"tools": {}}),
    ("tools", {"tools": TOOLS * (limits.MOST_TOOLS + 1)}),
    ("tools[0]", {"tools": ["get_weather"]}),
    ("tools[0].type", {"tools": [{"function": WEATHER}]}),
    ("tools[0].type", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
    ("tools[0].x", {"tools": [{**TOOLS[0], "x": 1}]}),
    ("tools[0].function", {"tools": [{"type": "function"}]}),
    ("tools[0].function.parmeters", {"tools": function(parmeters={})}),
    ("tools[0].function.strict", {"tools": function(strict="yes")}),
    ("tools[0].function.name", {"tools": function(name=None)}),
    ("tools[0].function.name", {"tools": function(name="")}),
    ("tools[0].function.name", {"tools": function(name="a" * 65)}),
    ("tools[0].function.name", {"tools": function(name="<|user|>")}),
    ("tools[0].function.name", {"tools": function(name="name\n")}),
    ("tools[0].function.name", {"tools": function(name="天气")}),
    ("tools[1].function.name", {"tools": TOOLS * 2}),
    ("tools[0].function.description", {"tools": function(description=5)}),
    ("tools[0].function.description", {"tools": function(description="\ud800")}),
    ("tools[0].function.parameters", {"tools": function(parameters=[])}),
    ("tools[0].function", {"tools": function(parameters={"\udc00": 1})}),
    ("tools[0].function", {"tools": function(parameters=nested(limits.MAX_JSON_DEPTH))}),
    ("tools[0].function", {"tools": function(description="x" * limits.MAX_FUNCTION_CHARACTERS)}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [], "tool_choice": "required"}),
    ("tool_choice", {"tools": TOOLS, "tool_choice": "any"}),
    ("tool_choice", {"tools": TOOLS, "tool_choice": 1}),
    ("tool_choice.type", {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}),
    ("tool_choice.function", {"tools": TOOLS, "tool_choice": {"type": "function"}}),
    ("tool_choice.name", {"tools": TOOLS, "tool_choice": {"type": "function", "name": "get_weather"}}),
    ("tool_choice.function.x", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"x": 1}}}),
    ("tool_choice.function.name", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {}}}),
    ("tool_choice.function.name", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}),
    ("tool_choice.function.name", {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
    ("parallel_tool_calls", {"parallel_tool_calls": "no"}),
    ("functions", {"functions": [WEATHER]}),
    ("function_call", {"function_call": {"name": "get_weather"}}),
    ("chat_template_kwargs", {"chat_template_kwargs": []}),
    ("chat_template_kwargs.thinking", {"chat_template_kwargs": {"thinking": True}}),
    ("chat_template_kwargs.enable_thinking", {"chat_template_kwargs": {"enable_thinking": "no"}}),
    ("reasoning_effort", {"reasoning_effort": "a lot"}),
    ("reasoning_effort", {"reasoning_effort": ["none"]}),
    ("reasoning_effort", {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}),
    ("messages", {"messages": HELLO * (limits.MOST_MESSAGES + 1)}),
    ("messages[1].content", {"messages": [*HELLO, {**CALLING, "tool_calls": []}]}),
    ("messages[1].tool_calls", {"messages": [*HELLO, {**CALLING, "tool_calls": CALL}]}),
    ("messages[1].tool_calls", {"messages": [*HELLO, {**CALLING, "tool_calls": [CALL] * 129}]}),
    ("messages[1].tool_calls[0]", {"messages": [*HELLO, {**CALLING, "tool_calls": ["get_weather"]}]}),
    ("messages[1].tool_calls[0].type", {"messages": call(type="custom")}),
    ("messages[1].tool_calls[0].id", {"messages": call(id=None)}),
    ("messages[1].tool_calls[0].id", {"messages": call(id="")}),
    ("messages[1].tool_calls[0].id", {"messages": call(id="x" * 257)}),
    ("messages[1].tool_calls[0].x", {"messages": call(x=1)}),
    ("messages[1].tool_calls[0].function", {"messages": call(function=None)}),
    ("messages[1].tool_calls[0].function.x", {"messages": called(x=1)}),
    ("messages[1].tool_calls[0].function.name", {"messages": called(name="a b")}),
    *(
        ("messages[1].tool_calls[0].function.arguments", {"messages": called(arguments=arguments)})
        for arguments in (
            *(
                None,
                {"city": "北京"},
                "北京",
                "[]",
                "null",
                '{"city": ',
                '{"a": NaN}',
                '{"a": "\\ud800"}',
                '{"\ud800": 1}',
            ),
            *('{"a":' * 100_000 + "1" + "}" * 100_000, json.dumps(nested(66)), json.dumps({"a": "x" * 70_000})),
        )
    ),
    ("messages[1].reasoning_content", {"messages": [*HELLO, {**CALLING, "reasoning_content": 5}]}),
    ("messages[0].reasoning_content", {"messages": [{**HELLO[0], "reasoning_content": "Hm."}]}),
    ("messages[0].tool_call_id", {"messages": [{**HELLO[0], "tool_call_id": "call_1"}]}),
    ("messages[0].tool_call_id", {"messages": [RESULT, CALLING]}),
    ("messages[2].tool_call_id", {"messages": [*HELLO, CALLING, {**RESULT, "tool_call_id": "call_2"}]}),
    ("messages[2].tool_call_id", {"messages": [*HELLO, CALLING, {**RESULT, "tool_call_id": None}]}),
    ("messages[2].content", {"messages": [*HELLO, CALLING, {**RESULT, "content": {"weather": "晴"}}]}),
    ("messages[2].name", {"messages": [*HELLO, CALLING, {**RESULT, "name": 5}]}),
]


@pytest.mark.parametrize(("param", "body"), BAD, ids=[f"{n}-{param}" for n, (param, _) in enumerate(BAD)])
def test_bad_values_are_named(param: str, body: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        read(**body)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message.startswith(param)
    caught.value.message.encode("utf-8")


def test_what_is_just_within_the_limits() -> None:
    room = limits.MAX_FUNCTION_CHARACTERS - len(json.dumps(WEATHER, ensure_ascii=False)) + len("查天气")
    read(tools=function(description="x" * room))
    read(tools=function(parameters=nested(limits.MAX_JSON_DEPTH - 1)))
    read(messages=HELLO * limits.MOST_MESSAGES)


def tokenize(**body: Any) -> TokenizeRequest:
    return read_tokenize(body, MODEL, "req_1")


def test_tokenize_takes_a_conversation_or_a_prompt() -> None:
    asked = tokenize(
        model=MODEL, messages=HELLO, tools=TOOLS, chat_template_kwargs={"enable_thinking": False},
        add_generation_prompt=True, continue_final_message=False, add_special_tokens=False, return_token_strs=False,
    )  # fmt: skip
    expected = read(tools=TOOLS).request
    assert (asked.messages, asked.tools, asked.enable_thinking) == (expected.messages, expected.tools, False)
    assert tokenize(prompt="你好\n") == TokenizeRequest("req_1", prompt="你好\n")
    assert tokenize(prompt="") == TokenizeRequest("req_1", prompt="")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("messages", {}),
        ("messages", {"messages": HELLO, "prompt": "x"}),
        ("tools", {"tools": TOOLS, "prompt": "x"}),
        ("add_generation_prompt", {"add_generation_prompt": True, "prompt": "x"}),
        ("prompt", {"prompt": ["x"]}),
        ("prompt", {"prompt": "\ud800"}),
        ("add_generation_prompt", {"messages": HELLO, "add_generation_prompt": False}),
        ("continue_final_message", {"messages": HELLO, "continue_final_message": True}),
        ("add_special_tokens", {"prompt": "x", "add_special_tokens": True}),
        ("return_token_strs", {"prompt": "x", "return_token_strs": True}),
        ("return_token_strs", {"prompt": "x", "return_token_strs": 0}),
        ("chat_template", {"messages": HELLO, "chat_template": "{{ 1 }}"}),
        ("messages[0].role", {"messages": [{}]}),
        ("tools[0].type", {"messages": HELLO, "tools": [{}]}),
    ],
)
def test_tokenize_names_what_is_wrong(param: str, body: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        tokenize(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("param", "tokens"),
    [
        *(("tokens", None), ("tokens", "1"), ("tokens", [1] * (limits.MOST_TOKENIZE_IDS + 1))),
        *(("tokens[1]", [1, wrong]) for wrong in (None, True, 1.0, "1", -1, 2**31)),
    ],
)
def test_detokenize_names_what_is_wrong(param: str, tokens: Any) -> None:
    with pytest.raises(ApiError) as caught:
        read_detokenize({"tokens": tokens}, MODEL, "req_1")
    assert (caught.value.status, caught.value.param) == (400, param)


def test_detokenize() -> None:
    assert read_detokenize({"model": MODEL, "tokens": [5, 0]}, MODEL, "req_1") == DetokenizeRequest("req_1", (5, 0))
    assert read_detokenize({"tokens": []}, MODEL, "req_1").tokens == ()
    for ask in (read_detokenize, read_tokenize):
        with pytest.raises(ApiError) as caught:
            ask({"model": "other", "tokens": [1]}, MODEL, "req_1")
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")
