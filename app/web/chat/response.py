"""OpenAI's JSON for an answer: a whole completion, or the chunks of a stream as server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.contract.wire import Delta, Finished, TokenChance, ToolCallDelta
from app.web.http.sse import event, text_event, to_json

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Answer:
    """What all pieces of one answer share."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    include_usage: bool

    def completion(self, deltas: Iterable[Delta], finished: Finished) -> dict[str, Any]:
        """The whole answer: the same message that a client puts together from the stream of these deltas."""
        said = list(deltas)
        choice = {
            "index": 0,
            "message": _message(said),
            "logprobs": _logprobs(said),
            "finish_reason": finished.finish_reason,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(finished)}

    def first(self, delta: Delta | None) -> bytes:
        """The chunk that opens the turn of an assistant who goes on with `delta`.

        As at OpenAI, content is an empty string where text follows, and null where something else does.
        """
        silent = delta is not None and not delta.text and bool(delta.reasoning or delta.tool_calls)
        return event(self._chunk({"role": "assistant", "content": None if silent else "", "refusal": None}, None))

    def delta(self, delta: Delta) -> bytes:
        """New text, new thoughts, new calls."""
        if delta.logprobs:
            return event(self._chunk(_said(delta), None, _logprobs([delta])))
        before, after = self._around
        return text_event(before + to_json(_said(delta)) + after)

    def last(self, finished: Finished) -> bytes:
        """The end: why it ended, the usage where it was asked for, and OpenAI's end mark."""
        end = event(self._chunk({}, finished.finish_reason))
        if self.include_usage:
            end += event({**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(finished)})
        return end + DONE

    @cached_property
    def _around(self) -> tuple[str, str]:
        """The JSON of a chunk before what it says and behind it, in which the chunks of one answer don't differ."""
        before, _, after = to_json(self._chunk({}, None)).rpartition("{}")
        return before, after

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        body = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self.include_usage:
            body["usage"] = None
        return body

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def _said(delta: Delta) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if delta.reasoning:
        said["reasoning_content"] = delta.reasoning
    if delta.text:
        said["content"] = delta.text
    if delta.tool_calls:
        said["tool_calls"] = [{"index": index, **call} for index, call in _calls(delta.tool_calls).items()]
    return said


def _message(said: Sequence[Delta]) -> dict[str, Any]:
    text = "".join(delta.text for delta in said)
    reasoning = "".join(delta.reasoning for delta in said)
    calls = _calls(call for delta in said for call in delta.tool_calls)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if not text and (reasoning or calls):
        message["content"] = None
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = list(calls.values())
    return message


def _logprobs(said: Iterable[Delta]) -> dict[str, Any] | None:
    """OpenAI's list of the tokens; null where none were asked for."""
    tokens = [
        {**_chance(one.chosen), "top_logprobs": [_chance(other) for other in one.top]}
        for delta in said
        for one in delta.logprobs
    ]
    return {"content": tokens, "refusal": None} if tokens else None


def _chance(token: TokenChance) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.utf8)}


def _calls(deltas: Iterable[ToolCallDelta]) -> dict[int, dict[str, Any]]:
    """OpenAI's JSON of each call by its index; pieces of one call are joined, for clients expect it once a chunk."""
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        call = calls.setdefault(delta.index, {})
        if delta.id is not None:
            call |= {"id": delta.id, "type": "function", "function": {"name": delta.name, "arguments": ""}}
        function = call.setdefault("function", {"arguments": ""})
        function["arguments"] += delta.arguments
    return calls


def _usage(finished: Finished) -> dict[str, Any]:
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens},
    }
