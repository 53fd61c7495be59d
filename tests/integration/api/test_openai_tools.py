"""The official client against a checkpoint that calls tools, through the whole service.

What the model says to each question is in tools/tool_caller/talks.py; it was trained to say that.
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.openai_answers import TOOLS, ask, calls_of, counted_of, end_of, result_for
from tests.processes.service import Service, running
from tools.tool_caller import talks
from tools.tool_caller.train import FIXTURE

NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
MODES = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("tools"), GLM_MODEL=str(FIXTURE), GLM_PRECISION="fp32") as service:
        service.wait_for("ready")
        yield service


@MODES
@pytest.mark.parametrize("result", talks.RESULTS)
@pytest.mark.parametrize("city", talks.ASK)
def test_a_round_trip(client: OpenAI, city: str, result: str, stream: bool) -> None:
    question = {"role": "user", "content": talks.ASK[city]}
    message, reason = end_of(ask(client, [question], stream))
    assert (message["content"], reason) == (None, "tool_calls")
    assert message["reasoning_content"] == talks.call_thought(city)
    assert calls_of(message) == [("get_weather", talks.arguments(city))]
    assert type(calls_of(message)[0][1]["days"]) is int
    message, reason = end_of(ask(client, [question, message, result_for(message, result)], stream))
    assert (message["content"], reason) == (talks.answer(city, result), "stop")
    assert message["reasoning_content"] and "tool_calls" not in message


@MODES
@pytest.mark.parametrize("off", [{"extra_body": NO_THINKING}, {"reasoning_effort": "none"}], ids=["kwargs", "effort"])
def test_a_round_trip_without_thinking(client: OpenAI, off: dict[str, Any], stream: bool) -> None:
    question = {"role": "user", "content": talks.ASK["北京"]}
    first, reason = end_of(ask(client, [question], stream, **off))
    assert "reasoning_content" not in first and reason == "tool_calls"
    second, reason = end_of(ask(client, [question, first, result_for(first, "sun")], stream, **off))
    assert "reasoning_content" not in second
    assert (second["content"], reason) == (talks.answer("北京", "sun"), "stop")


@MODES
def test_thoughts_are_apart_from_the_answer(client: OpenAI, stream: bool) -> None:
    for tools in (TOOLS, []):
        message, reason = end_of(ask(client, talks.HELLO, stream, tools=tools))
        assert (message["content"], reason) == (talks.GREETING, "stop")
        assert message["reasoning_content"] == talks.GREETING_THOUGHT


@MODES
def test_tool_choice_none(client: OpenAI, stream: bool) -> None:
    message, reason = end_of(ask(client, talks.ASK["Paris"], stream, tool_choice="none"))
    assert (message["content"], reason) == (talks.NO_TOOLS, "stop")
    assert "tool_calls" not in message


@MODES
def test_tool_choice_required(client: OpenAI, stream: bool) -> None:
    message, reason = end_of(ask(client, talks.HELLO, stream, tool_choice="required"))
    assert reason == "tool_calls" and message["content"] is None
    (call,) = calls_of(message)
    assert call in [("get_weather", talks.arguments("Paris")), ("get_time", {"zone": talks.ZONES["Paris"]})]


@MODES
@pytest.mark.parametrize("name", ["get_weather", "get_time"])
def test_tool_choice_named(client: OpenAI, name: str, stream: bool) -> None:
    choice = {"type": "function", "function": {"name": name}}
    message, reason = end_of(ask(client, talks.ASK["Rome"], stream, tool_choice=choice))
    arguments = talks.arguments("Rome") if name == "get_weather" else {"zone": talks.ZONES["Rome"]}
    assert (calls_of(message), reason) == ([(name, arguments)], "tool_calls")


@MODES
def test_two_calls_and_only_one_where_one_is_wanted(client: OpenAI, stream: bool) -> None:
    request: dict[str, Any] = {"content": talks.ASK_BOTH, "stream": stream, "extra_body": NO_THINKING}
    both, reason = end_of(ask(client, **request))
    assert reason == "tool_calls"
    assert calls_of(both) == [("get_weather", talks.arguments(city)) for city in ("Paris", "Rome")]
    assert len({call["id"] for call in both["tool_calls"]}) == 2
    one, reason = end_of(ask(client, **request, parallel_tool_calls=False))
    assert (calls_of(one), reason) == (calls_of(both)[:1], "tool_calls")


@MODES
def test_a_call_that_the_limit_cuts_off_is_text(client: OpenAI, stream: bool) -> None:
    message, reason = end_of(ask(client, talks.ASK["Paris"], stream, max_tokens=8, extra_body=NO_THINKING))
    assert reason == "length" and "tool_calls" not in message
    assert message["content"].startswith("<tool_call>get_weather")


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("said", [*talks.ASK.values(), talks.ASK_BOTH, talks.HELLO])
def test_stream_and_whole_are_the_same_and_count_the_same(
    client: OpenAI, service: Service, said: str, thinking: bool
) -> None:
    more = {"extra_body": {"chat_template_kwargs": {"enable_thinking": thinking}}}
    whole, streamed = (ask(client, said, stream, **more) for stream in (False, True))
    (one, one_reason), (two, two_reason) = end_of(whole), end_of(streamed)
    assert one_reason == two_reason and calls_of(one) == calls_of(two)
    for name in ("content", "reasoning_content"):
        assert one.get(name) == two.get(name)
    assert counted_of(whole) == counted_of(streamed)
    body = {"messages": [{"role": "user", "content": said}], "tools": TOOLS, **more["extra_body"]}
    code, counted = service.request("POST", "/tokenize", body)
    assert (code, counted["count"]) == (200, whole["usage"]["prompt_tokens"])


def test_each_event_of_a_stream_is_whole_by_itself(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": talks.HELLO}], "temperature": 0, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        raw = connection.getresponse().read()
    finally:
        connection.close()
    events = [event for event in raw.split(b"\n\n") if event.startswith(b"data: {")]
    deltas = [json.loads(event.decode("utf-8")[6:])["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == talks.GREETING
    assert not any("\ufffd" in json.dumps(delta, ensure_ascii=False) for delta in deltas)


def test_the_log_names_no_tool_and_no_argument(service: Service, client: OpenAI) -> None:
    ask(client, talks.ASK["北京"], True)
    log = service.log()
    assert '"outcome": "tool_calls"' in log
    for secret in ("get_weather", "北京", "要查", "umbrella", "☔"):
        assert secret not in log


@MODES
def test_log_probabilities_of_every_token(client: OpenAI, stream: bool) -> None:
    completion = ask(client, talks.HELLO, stream, logprobs=True, top_logprobs=3)
    tokens = completion["choices"][0]["logprobs"]["content"]
    assert len(tokens) == completion["usage"]["completion_tokens"] - 1, "all but the one that ends the answer"
    text = bytes(byte for token in tokens for byte in token["bytes"]).decode()
    assert talks.GREETING_THOUGHT in text and text.endswith(talks.GREETING)
    for token in tokens:
        values = [other["logprob"] for other in token["top_logprobs"]]
        assert len(values) == 3 and values == sorted(values, reverse=True)
        assert token["top_logprobs"][0]["bytes"] == token["bytes"], "greedy takes the likeliest"
        assert token["logprob"] == values[0] <= 0 and sum(map(math.exp, values)) <= 1.0001
    without = ask(client, talks.HELLO, stream)["choices"][0]
    assert without.get("logprobs") is None and without["message"] == completion["choices"][0]["message"]


@MODES
def test_a_broken_off_answer_goes_on(client: OpenAI, stream: bool) -> None:
    whole, _ = end_of(ask(client, talks.HELLO, stream))
    begun: list[tuple[str, str]] = [("", "A gre"), ("Hello!", talks.GREETING_THOUGHT)]
    for content, thought in begun:
        answer = {"role": "assistant", "content": content, "reasoning_content": thought}
        switches = {"continue_final_message": True, "add_generation_prompt": False}
        messages = [{"role": "user", "content": talks.HELLO}, answer]
        rest, reason = end_of(ask(client, messages, stream, extra_body=switches))
        assert reason == "stop"
        assert content + (rest["content"] or "") == whole["content"]
        assert thought + rest.get("reasoning_content", "") == whole["reasoning_content"]
        again, _ = end_of(ask(client, messages, stream))
        assert again["content"] != rest["content"] or again.get("reasoning_content"), "without it an answer begins anew"


def test_what_cannot_go_on_is_refused(client: OpenAI) -> None:
    answer = {"role": "assistant", "content": "<tool_call>get_weather\n<arg_key>"}
    switches = {"continue_final_message": True}
    with pytest.raises(BadRequestError) as caught:
        ask(client, [{"role": "user", "content": "x"}, answer], False, extra_body=switches)
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "messages")


def test_each_way_of_sampling_does_what_it_says(client: OpenAI) -> None:
    def said(**sampling: Any) -> str:
        message, _ = end_of(ask(client, talks.HELLO, False, max_tokens=12, tools=[], **sampling))
        return f"{message.get('reasoning_content')} {message['content']}"

    greedy = said(temperature=0)
    hot: dict[str, Any] = {"temperature": 2, "top_p": 1, "seed": 5}
    assert said(**hot) == said(**hot) != greedy
    assert said(**hot, extra_body={"top_k": 1}) == said(**hot, extra_body={"min_p": 1}) == greedy
    assert said(**{**hot, "top_p": 1e-9}) == greedy
    assert said(temperature=0, frequency_penalty=2, presence_penalty=2, extra_body={"repetition_penalty": 10}) != greedy
