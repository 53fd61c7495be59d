"""Bodies made to hurt: refused by name within a second of work, never a 500, and nothing of them in the log."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.web.support import CHAT, Web

WORK_SECONDS = 5.0
"""A slow machine takes a second for the widest; what grows with the square of a body takes minutes."""
PATHS = (CHAT, "/tokenize", "/detokenize")
HELLO = [{"role": "user", "content": "hello"}]
SECRET = "sesam-öffne-dich"


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def tools(*functions: Any) -> str:
    return json.dumps({"messages": HELLO, "tools": [{"type": "function", "function": f} for f in functions]})


def with_arguments(arguments: str) -> str:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return json.dumps({"messages": [*HELLO, {"role": "assistant", "tool_calls": [call]}]})


BODIES: dict[str, tuple[str, int, str | None]] = {
    "ten thousand tools": (tools(*({"name": f"f{n}"} for n in range(10_000))), 400, "tools"),
    "deep schema": (tools({"name": "f", "parameters": json.loads(nested(400))}), 400, "tools[0].function"),
    "too deep for JSON": (f'{{"tools": {nested(300_000)}}}', 400, None),
    "wide schema": (
        tools({"name": "f", "parameters": {f"p{n}": {} for n in range(200_000)}}), 400, "tools[0].function",
    ),
    "huge name": (tools({"name": "f" * 4_000_000}), 400, "tools[0].function.name"),
    "huge key": (tools({"name": "f", "k" * 4_000_000: 1}), 400, "tools[0].function.kkkk"),
    "huge choice": (
        json.dumps({"messages": HELLO, "tool_choice": {"type": "function", "function": {"name": "x" * 4_000_000}}}),
        400, "tool_choice.function.name",
    ),
    "deep arguments": (with_arguments(nested(100_000)), 400, "messages[1].tool_calls[0].function.arguments"),
    "huge arguments": (
        with_arguments(json.dumps({"a": "x" * 3_900_000})), 400, "messages[1].tool_calls[0].function.arguments",
    ),
    "many keys": (json.dumps({"messages": HELLO, **{f"k{n}": 1 for n in range(200_000)}}), 400, "k0"),
    "many messages": (json.dumps({"messages": HELLO * 100_000}), 400, "messages"),
    "many parts": (
        json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 120_000}]}), 200, None,
    ),
    "many calls": (
        json.dumps({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}] * 200_000}]}), 400,
        "messages[0].tool_calls",
    ),
    "many results": (
        json.dumps({"messages": [{"role": "tool", "tool_call_id": f"c{n}", "content": ""} for n in range(16_000)]}),
        400, "messages[0].tool_call_id",
    ),
    "large body": (json.dumps({"messages": [{"role": "user", "content": "x" * 4_194_304}]}), 413, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_hostile_bodies_are_refused_with_little_work(module_web: Web, name: str) -> None:
    body, status, param = BODIES[name]
    started = time.process_time()  # of the work, not of the clock: other tests may have the cores
    with module_web.client.post(CHAT, data=body, content_type="application/json") as answer:
        assert answer.status_code == status, answer.text[:300]
        assert len(answer.data) < 1000
        assert time.process_time() - started < WORK_SECONDS
        if param is not None:
            assert answer.get_json()["error"]["param"].startswith(param)


def test_as_many_ids_as_may_come_are_answered(module_web: Web) -> None:
    body = json.dumps({"tokens": [9] * 2**20})
    with module_web.client.post("/detokenize", data=body, content_type="application/json") as answer:
        assert (answer.status_code, len(answer.get_json()["prompt"])) == (200, 2**20)


NAMES = st.sampled_from(
    [
        "model", "messages", "prompt", "tokens", "tools", "tool_choice", "role", "content", "tool_calls", "id", "type",
        "function", "name", "arguments", "parameters", "tool_call_id", "reasoning_content", "chat_template_kwargs",
        "enable_thinking", "reasoning_effort", "parallel_tool_calls", "stream", "stop", "temperature", "text",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    ["user", "assistant", "tool", "system", "function", "text", "auto", "none", "required", "{}", '{"a": 1}', "c", "f"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=5)
ANYTHING = st.recursive(
    LEAVES | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)
CALLS = st.fixed_dictionaries(
    {}, optional={"id": ANYTHING | WORDS, "type": ANYTHING | WORDS, "function": ANYTHING, "index": ANYTHING}
)
MESSAGES = st.fixed_dictionaries(
    {"role": WORDS | ANYTHING},
    optional={
        "content": WORDS | ANYTHING, "tool_calls": st.lists(CALLS, max_size=2) | ANYTHING,
        "tool_call_id": WORDS | ANYTHING, "reasoning_content": ANYTHING, "name": ANYTHING,
    },
)  # fmt: skip
FUNCTIONS = st.fixed_dictionaries({"name": WORDS | ANYTHING}, optional={"parameters": ANYTHING, "description": LEAVES})
TOOLS = st.fixed_dictionaries({"type": WORDS}, optional={"function": FUNCTIONS | ANYTHING})
BODY = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(MESSAGES, max_size=3) | ANYTHING, "tools": st.lists(TOOLS, max_size=3) | ANYTHING,
        "tool_choice": WORDS | ANYTHING, "chat_template_kwargs": ANYTHING, "reasoning_effort": ANYTHING,
        "parallel_tool_calls": ANYTHING, "stream": st.booleans() | ANYTHING, "prompt": LEAVES, "tokens": ANYTHING,
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), body=BODY | ANYTHING)
def test_no_body_is_a_500(module_web: Web, path: str, body: Any) -> None:
    with module_web.client.post(path, data=json.dumps(body), content_type="application/json") as answer:
        assert answer.status_code in (200, 400, 404), answer.text
        if answer.status_code != 200:
            error = answer.get_json()["error"]
            assert error["type"] == "invalid_request_error" and error["message"]


def test_the_log_holds_nothing_of_what_was_said(module_web: Web, caplog: pytest.LogCaptureFixture) -> None:
    client = module_web.client
    caplog.set_level("DEBUG")
    function = {"name": SECRET[:5], "description": SECRET, "parameters": {SECRET: {}}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({SECRET: SECRET})}}
    messages = [
        {"role": "system", "content": SECRET},
        {"role": "assistant", "reasoning_content": SECRET, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": SECRET},
        {"role": "user", "content": f"echo {SECRET}"},
    ]
    body = {"messages": messages, "tools": [{"type": "function", "function": function}]}
    wrong = {**body, SECRET: SECRET}
    ids = {"tokens": [ord(character) for character in SECRET]}
    requests = (CHAT, body), (CHAT, wrong), (CHAT, {**body, "stream": True}), ("/tokenize", body), ("/detokenize", ids)
    for path, sent in requests:
        with client.post(path, json=sent) as answer:
            assert answer.data
    lines = [record.getMessage() for record in caplog.records]
    assert [json.loads(line)["path"] for line in lines] == [path for path, _ in requests]
    assert not any("sesam" in line or json.dumps(SECRET)[1:-1] in line for line in lines)
