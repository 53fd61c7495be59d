"""Which requests are admitted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.contract.wire import ChatRequest, DetokenizeRequest, TokenizeRequest
from app.engine.errors import RequestError
from app.engine.serving.admission import check_ids, new_token_limit, read_request

REQUEST: dict[str, Any] = {"type": "chat", "request_id": "r", "messages": [{"role": "user", "content": "hi"}]}

TOOL = {"name": "f", "function": '{"name": "f"}'}


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_request(json.dumps(REQUEST | fields).encode())
    return caught.value


def test_a_request_is_read() -> None:
    limits = {"temperature": 2, "top_p": 1, "top_k": 0, "min_p": 1, "repetition_penalty": 0.01, "presence_penalty": -2}
    request = read_request(json.dumps(REQUEST | {"sampling": limits, "logprobs": 20, "stop": ["x"]}).encode())
    assert isinstance(request, ChatRequest)
    assert request.messages[0].content == "hi"
    assert request.sampling.temperature == 2
    assert request.stop == ("x",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"sampling": {"temperature": -0.1}}, "temperature"),
        ({"sampling": {"temperature": 2.1}}, "temperature"),
        ({"sampling": {"temperature": float("inf")}}, "temperature"),
        ({"sampling": {"top_p": 0}}, "top_p"),
        ({"sampling": {"top_p": 1.1}}, "top_p"),
        *[({"sampling": {"top_k": value}}, "top_k") for value in (-1, 2**31)],
        *[({"sampling": {"min_p": value}}, "min_p") for value in (-0.1, 1.1)],
        *[({"sampling": {"repetition_penalty": value}}, "repetition_penalty") for value in (0, 0.009, -1, 10.1)],
        *[({"sampling": {"presence_penalty": value}}, "presence_penalty") for value in (-2.1, 2.1, float("nan"))],
        *[({"sampling": {"frequency_penalty": value}}, "frequency_penalty") for value in (-2.1, 2.1)],
        *[({"logprobs": value}, "top_logprobs") for value in (-1, 21)],
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"tool_choice": {"mode": "required"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"mode": "required", "name": "g"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"mode": "auto", "name": "f"}}, "tool_choice"),
        ({"type": "tokenize", "messages": []}, "messages"),
        ({"type": "tokenize", "prompt": "both"}, "messages"),
    ],
)
def test_a_wrong_value_names_its_field(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).reply.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": 1},
        {"messages": [{"role": "god", "content": ""}]},
        {"max_tokens": True},
        {"stop": "x"},
        {"type": "x"},
    ],
)
def test_a_wrong_type_is_a_bad_request(fields: dict[str, Any]) -> None:
    assert refused(**fields).reply.code == "invalid_request"


def test_the_other_requests_are_read() -> None:
    line = json.dumps(REQUEST | {"type": "tokenize", "tools": [TOOL]}).encode()
    assert isinstance(read_request(line), TokenizeRequest)
    plain = read_request(b'{"type": "tokenize", "request_id": "r", "prompt": ""}')
    assert isinstance(plain, TokenizeRequest)
    assert plain.prompt == ""
    assert read_request(b'{"type": "detokenize", "request_id": "r", "tokens": [1]}') == DetokenizeRequest("r", (1,))


def test_an_id_out_of_range_is_named_by_its_place() -> None:
    check_ids(DetokenizeRequest("r", (0, 9)), 10)
    for bad in (10, -1):
        with pytest.raises(RequestError, match=rf"tokens\[1\] is {bad}; .*from 0 to 9") as caught:
            check_ids(DetokenizeRequest("r", (3, bad)), 10)
        assert caught.value.reply.param == "tokens"


def test_room_is_what_the_prompt_leaves() -> None:
    assert new_token_limit(10, None, 100) == 90
    assert new_token_limit(10, 90, 100) == 90
    assert new_token_limit(99, None, 100) == 1
    with pytest.raises(RequestError, match="at most 99"):
        new_token_limit(100, 1, 100)
    with pytest.raises(RequestError, match="at most 90"):
        new_token_limit(10, 91, 100)
    with pytest.raises(RequestError) as caught:
        new_token_limit(0, None, 100)
    assert caught.value.reply.code == "invalid_conversation"
