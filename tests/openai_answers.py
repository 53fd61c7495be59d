"""Answers as the official client gets them, whole or streamed. Its own code assembles the streams."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from tools.tool_caller import talks

TOOLS = [{"type": "function", "function": json.loads(tool.function)} for tool in talks.TOOLS]


def assemble(chunks: Iterable[ChatCompletionChunk]) -> dict[str, Any]:
    """The completion that the client assembles from a stream with usage, without the fields that only it adds."""
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    completion: dict[str, Any] = dict(state.current_completion_snapshot.to_dict())
    message = completion["choices"][0]["message"]
    for name in set(message) - {"content", "refusal"}:
        if message[name] is None:
            del message[name]
    for call in message.get("tool_calls", ()):
        del call["index"]
        call["function"].pop("parsed_arguments", None)
    return completion


def same_in_any_answer(completion: dict[str, Any]) -> dict[str, Any]:
    """The completion without ids and times, which differ between two answers to one request."""
    return {name: value for name, value in completion.items() if name not in ("id", "created", "object")}


def ask(client: OpenAI, content: Any, stream: bool, **more: Any) -> dict[str, Any]:
    """The completion for a list of messages, or for one question. Sends `TOOLS` unless `more` has other tools."""
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    request = {"model": "", "messages": messages, "temperature": 0, "tools": TOOLS, **more}
    if not stream:
        return dict(client.chat.completions.create(**request).to_dict())
    with client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}) as chunks:
        return assemble(chunks)


def end_of(completion: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The message and its finish reason."""
    choice = completion["choices"][0]
    return choice["message"], choice["finish_reason"]


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    """The names and parsed arguments of a message's calls."""
    functions = [call["function"] for call in message.get("tool_calls", [])]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def result_for(message: dict[str, Any], content: str) -> dict[str, Any]:
    """The tool's result for the message's first call."""
    return {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": content}


def counted_of(completion: dict[str, Any]) -> dict[str, Any]:
    """The usage, without the tokens that happened to be in the cache."""
    return {name: count for name, count in completion["usage"].items() if name != "prompt_tokens_details"}
