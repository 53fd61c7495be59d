"""OpenAI's JSON for an answer: a whole completion, or chunks as server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.contract.wire import Delta, Finished, TokenChance, ToolCallDelta
from app.web.http.sse import event, text_event, to_json

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class ChatResponse:
    """The fields that all chunks of one response share, and the encoding of each."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    include_usage: bool

    def completion(self, deltas: Iterable[Delta], finished: Finished) -> dict[str, Any]:
        """The whole response, with the message that a client would assemble from a stream of these deltas."""
        parts = list(deltas)
        choice = {
            "index": 0,
            "message": _message(parts),
            "logprobs": _logprobs(parts),
            "finish_reason": finished.finish_reason,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(finished)}

    def first(self, delta: Delta | None) -> bytes:
        """The first chunk; `delta` is what follows.

        As at OpenAI, content is an empty string if text follows, and null if reasoning or a tool call does.
        """
        no_text = delta is not None and not delta.text and bool(delta.reasoning or delta.tool_calls)
        return event(self._chunk({"role": "assistant", "content": None if no_text else "", "refusal": None}, None))

    def delta(self, delta: Delta) -> bytes:
        """A chunk with new text, reasoning or tool calls."""
        if delta.logprobs:
            return event(self._chunk(_delta(delta), None, _logprobs([delta])))
        before, after = self._chunk_frame
        return text_event(before + to_json(_delta(delta)) + after)

    def last(self, finished: Finished) -> bytes:
        """The last chunk with the finish reason, the usage if it was requested, and OpenAI's end mark."""
        end = event(self._chunk({}, finished.finish_reason))
        if self.include_usage:
            end += event({**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(finished)})
        return end + DONE

    @cached_property
    def _chunk_frame(self) -> tuple[str, str]:
        """The JSON of a chunk before and after its delta: it is the same in all chunks of one response."""
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


def _delta(delta: Delta) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if delta.reasoning:
        fields["reasoning_content"] = delta.reasoning
    if delta.text:
        fields["content"] = delta.text
    if delta.tool_calls:
        fields["tool_calls"] = [{"index": index, **call} for index, call in _calls(delta.tool_calls).items()]
    return fields


def _message(deltas: Sequence[Delta]) -> dict[str, Any]:
    text = "".join(delta.text for delta in deltas)
    reasoning = "".join(delta.reasoning for delta in deltas)
    calls = _calls(call for delta in deltas for call in delta.tool_calls)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if not text and (reasoning or calls):
        message["content"] = None
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = list(calls.values())
    return message


def _logprobs(deltas: Iterable[Delta]) -> dict[str, Any] | None:
    """OpenAI's list of tokens with logprobs; None if there are none."""
    tokens = [
        {**_token(one.chosen), "top_logprobs": [_token(other) for other in one.top]}
        for delta in deltas
        for one in delta.logprobs
    ]
    return {"content": tokens, "refusal": None} if tokens else None


def _token(token: TokenChance) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.utf8)}


def _calls(deltas: Iterable[ToolCallDelta]) -> dict[int, dict[str, Any]]:
    """OpenAI's JSON of each call by its index. Parts of one call are joined: clients expect one a chunk."""
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
