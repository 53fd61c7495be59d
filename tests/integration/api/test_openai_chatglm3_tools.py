"""The official client against a ChatGLM3 checkpoint that calls tools, in its published layout, through the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.openai_answers import TOOLS, ask, calls_of, counted_of, end_of, result_for
from tests.processes.service import Service, running
from tools.tool_caller import talks
from tools.tool_caller.train_chatglm3 import FIXTURE

MODES = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("chatglm3"), GLM_MODEL=str(FIXTURE), GLM_PRECISION="fp32") as service:
        service.wait_for("ready")
        yield service


@MODES
@pytest.mark.parametrize("city", talks.ASK)
def test_a_round_trip(client: OpenAI, city: str, stream: bool) -> None:
    question = {"role": "user", "content": talks.ASK[city]}
    first, reason = end_of(ask(client, [question], stream))
    assert (first["content"], reason) == (None, "tool_calls")
    assert calls_of(first) == [("get_weather", talks.arguments(city))]
    for result in talks.RESULTS:
        second, reason = end_of(ask(client, [question, first, result_for(first, result)], stream))
        assert (second["content"], reason) == (talks.answer(city, result), "stop")
        assert "tool_calls" not in second


@MODES
def test_tool_choice(client: OpenAI, stream: bool) -> None:
    message, reason = end_of(ask(client, talks.ASK["北京"], stream, tool_choice="none"))
    assert (message["content"], reason) == (talks.NO_TOOLS, "stop")
    message, reason = end_of(ask(client, talks.HELLO, stream))
    assert (message["content"], reason) == (talks.GREETING, "stop")
    message, reason = end_of(ask(client, talks.HELLO, stream, tool_choice="required"))
    assert reason == "tool_calls" and calls_of(message)[0][0] in ("get_weather", "get_time")
    choice = {"type": "function", "function": {"name": "get_time"}}
    message, reason = end_of(ask(client, talks.ASK["Rome"], stream, tool_choice=choice))
    assert (calls_of(message), reason) == ([("get_time", {"zone": talks.ZONES["Rome"]})], "tool_calls")


def test_the_same_usage_and_prompt_ids(client: OpenAI, service: Service) -> None:
    whole, streamed = (ask(client, talks.ASK["北京"], stream) for stream in (False, True))
    assert counted_of(whole) == counted_of(streamed)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": talks.ASK["北京"]}], "tools": TOOLS}
    code, counted = service.request("POST", "/tokenize", body)
    assert (code, counted["count"]) == (200, whole["usage"]["prompt_tokens"])
