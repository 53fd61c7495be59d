"""Answers with text, thoughts and calls: the official client puts a stream together to the very same message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from app.contract.codec import to_json
from app.contract.wire import Accepted, Delta, Finished, Reply, TokenChance, TokenLogprob, ToolCallDelta
from tests.openai_answers import assemble, same_in_any_answer
from tests.unit.web.support import CHAT, Web, data_events

FIRST = ToolCallDelta(0, "call_a", "get_weather", '{"city": "北京"}')
SECOND = ToolCallDelta(1, "call_b", "get_time", "{}")
CHANCES = (
    TokenLogprob(TokenChance("a", (97,), -0.5), (TokenChance("a", (97,), -0.5), TokenChance("b", (98,), -2.0))),
    TokenLogprob(TokenChance("\ufffd", (0xE4, 0xBD), -1e-7)),
)


def post(client: FlaskClient, replies: list[Reply], **more: Any) -> bytes:
    script = json.dumps([to_json(reply) for reply in replies])
    body = {"messages": [{"role": "user", "content": f"script {script}"}], **more}
    with client.post(CHAT, json=body) as answer:
        assert answer.status_code == 200
        return answer.data


def both(client: FlaskClient, replies: list[Reply], **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer whole, and as the official client assembles the stream."""
    whole = json.loads(post(client, replies, **more))
    stream = post(client, replies, **more, stream=True, stream_options={"include_usage": True})
    streamed = assemble(ChatCompletionChunk.model_validate(event) for event in data_events(stream))
    return same_in_any_answer(whole), same_in_any_answer(streamed)


@st.composite
def answers(draw: st.DrawFn) -> list[Reply]:
    """An engine's replies: pieces of text, thoughts and calls in any order and any grouping."""
    count, calls = 0, 0
    replies: list[Reply] = [Accepted(draw(st.integers(1, 9)))]
    for kind in draw(st.lists(st.sampled_from(["text", "thought", "call", "calls", "nothing"]), max_size=8)):
        words = draw(st.text(max_size=6))
        tokens = draw(st.integers(1, 3))
        count += tokens
        deltas: list[ToolCallDelta] = []
        for _ in range({"call": 1, "calls": 2}.get(kind, 0)):
            name, pieces = draw(st.sampled_from(["f", "get_weather"])), draw(st.lists(st.text(max_size=3), max_size=3))
            deltas.append(ToolCallDelta(calls, f"call_{calls}", name, draw(st.sampled_from(["", "{"]))))
            deltas += [ToolCallDelta(calls, arguments=piece) for piece in pieces]
            calls += 1
        split = draw(st.integers(0, len(deltas)))
        groups = [tuple(deltas[:split]), tuple(deltas[split:])] if deltas else [()]
        text, thought = (words if kind in ("text", "calls") else ""), (words if kind == "thought" else "")
        chances = tuple(draw(st.lists(st.sampled_from(CHANCES), max_size=2))) if kind != "nothing" else ()
        first = Delta(text, tokens, thought, groups[0], chances if text or thought or groups[0] else ())
        replies += [first, *(Delta("", 0, "", group) for group in groups[1:])]
    replies += draw(st.sampled_from([[], [Delta("", 1, logprobs=CHANCES)]]))
    reason = draw(st.sampled_from(["length", "tool_calls" if calls else "stop"]))
    return [*replies, Finished(reason, replies[0].prompt_tokens, count)]  # type: ignore[arg-type, union-attr]


def assert_logprobs(whole: dict[str, Any], replies: list[Reply], one_call: bool) -> None:
    """Every log probability, in order; of an answer that is cut to one call, those up to there."""
    sent = [one.chosen.text for reply in replies if isinstance(reply, Delta) for one in reply.logprobs]
    logprobs = whole["choices"][0]["logprobs"]
    tokens = [] if logprobs is None else [token["token"] for token in logprobs["content"]]
    assert tokens == (sent[: len(tokens)] if one_call else sent)


@settings(max_examples=120, deadline=None)
@given(replies=answers(), one_call=st.booleans())
def test_stream_and_whole_agree(module_web: Web, replies: list[Reply], one_call: bool) -> None:
    whole, streamed = both(module_web.client, replies, parallel_tool_calls=not one_call)
    assert streamed == whole
    assert_logprobs(whole, replies, one_call)
    message = whole["choices"][0]["message"]
    deltas = [reply for reply in replies if isinstance(reply, Delta)]
    indexes = {call.index for delta in deltas for call in delta.tool_calls}
    assert len(message.get("tool_calls", [])) == (min(1, len(indexes)) if one_call else len(indexes))
    if not one_call:
        assert (message["content"] or "") == "".join(delta.text for delta in deltas)
        assert message.get("reasoning_content", "") == "".join(delta.reasoning for delta in deltas)


def test_a_call_alone(module_web: Web) -> None:
    replies: list[Reply] = [Accepted(7), Delta("", 9, "", (FIRST,)), Finished("tool_calls", 7, 9, 5)]
    whole = json.loads(post(module_web.client, replies))
    function = {"name": "get_weather", "arguments": '{"city": "北京"}'}
    assert whole["choices"][0] == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [{"id": "call_a", "type": "function", "function": function}],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    details = {"cached_tokens": 5}
    usage = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16, "prompt_tokens_details": details}
    assert whole["usage"] == usage


def test_log_probabilities_in_openais_form(module_web: Web) -> None:
    replies: list[Reply] = [Accepted(7), Delta("a", 2, logprobs=CHANCES), Finished("stop", 7, 2)]
    listed = [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [97]},
                {"token": "b", "logprob": -2.0, "bytes": [98]},
            ],
        },
        {"token": "\ufffd", "logprob": -1e-7, "bytes": [0xE4, 0xBD], "top_logprobs": []},
    ]
    whole = json.loads(post(module_web.client, replies, logprobs=True, top_logprobs=2))
    assert whole["choices"][0]["logprobs"] == {"content": listed, "refusal": None}
    chunks = [
        event["choices"][0] for event in data_events(post(module_web.client, replies, logprobs=True, stream=True))
    ]
    assert [chunk["logprobs"] for chunk in chunks] == [None, {"content": listed, "refusal": None}, None]


def test_the_stream_of_a_thought_a_text_and_a_call_in_pieces(module_web: Web) -> None:
    begun = ToolCallDelta(0, "call_a", "get_weather")
    replies: list[Reply] = [
        Accepted(7), Delta("", 1, "Hm."), Delta("好", 1), Delta("", 2, "", (begun,)),
        Delta("", 2, "", (ToolCallDelta(0, arguments="{"), ToolCallDelta(0, arguments="}"))),
        Finished("tool_calls", 7, 6),
    ]  # fmt: skip
    choices = [event["choices"][0] for event in data_events(post(module_web.client, replies, stream=True))]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": None, "refusal": None},
        {"reasoning_content": "Hm."},
        {"content": "好"},
        {
            "tool_calls": [
                {"index": 0, "id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["tool_calls"]


@pytest.mark.parametrize("stream", [False, True])
def test_one_call_ends_the_answer_and_cancels_the_rest(module_web: Web, stream: bool) -> None:
    client, engine = module_web.client, module_web.engine
    replies: list[Reply] = [Accepted(7), Delta("", 5, "", (FIRST,)), Delta("", 4, "", (SECOND,))]  # and no end
    body = post(client, replies, stream=stream, parallel_tool_calls=False)
    assert b"get_weather" in body and b"get_time" not in body and b'"tool_calls"' in body
    assert engine.last().done.wait(5)


@pytest.mark.parametrize("text", ["你好，世界", "👩‍👩‍👧‍👦🇨🇳", "a\u2028b\u2029c\r\nd\x00e", "𠮷𝄞"])
def test_every_character_by_itself_arrives_whole(module_web: Web, text: str) -> None:
    replies: list[Reply] = [Accepted(7), *(Delta(character, 1) for character in text), Finished("stop", 7, len(text))]
    whole, streamed = both(module_web.client, replies)
    assert whole == streamed and whole["choices"][0]["message"]["content"] == text


def test_tokenize_and_detokenize(module_web: Web) -> None:
    client, engine = module_web.client, module_web.engine
    messages = [{"role": "system", "content": "你"}, {"role": "user", "content": "好"}]
    for body in ({"prompt": "你好"}, {"messages": messages}):
        answer = client.post("/tokenize", json=body)
        assert answer.get_json() == {"count": 2, "max_model_len": 8192, "tokens": [0x4F60, 0x597D]}
    assert client.post("/detokenize", json={"tokens": [0x4F60, 0x597D]}).get_json() == {"prompt": "你好"}
    refused = client.post("/detokenize", json={"tokens": [0x110000]})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "tokens")
    tool = {"type": "function", "function": {"name": "f"}}
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    client.post("/tokenize", json={"messages": messages, "tools": [tool], **off})
    token_request = engine.token_requests[-1]
    assert (token_request.tools[0].name, token_request.enable_thinking) == ("f", False)  # type: ignore[union-attr]
