"""What the model is asked: a branch of a conversation and its settings, as the engine's request. Titles, too."""

from __future__ import annotations

from collections.abc import Iterable

from app.contract.conversations import ChatSettings, StoredMessage
from app.contract.wire import ChatRequest, Message, SamplingParams


def chat_request(
    request_id: str, branch: Iterable[StoredMessage], settings: ChatSettings, *, go_on: bool
) -> ChatRequest:
    """The request for an answer to the branch's last message; with `go_on` that is the answer itself, broken off.

    An answer that broke off before its first word has nothing to go on from: it is begun anew.
    """
    said = [message for message in branch if message.role != "assistant" or _says_something(message)]
    messages = [_message(message) for message in said]
    if settings.system_prompt:
        messages.insert(0, Message("system", settings.system_prompt))
    return ChatRequest(
        request_id=request_id,
        messages=tuple(messages),
        sampling=SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            presence_penalty=settings.presence_penalty,
            frequency_penalty=settings.frequency_penalty,
            seed=settings.seed,
        ),
        max_tokens=settings.max_tokens,
        enable_thinking=settings.enable_thinking,
        continue_answer=go_on and said[-1].role == "assistant",
    )


def _says_something(answer: StoredMessage) -> bool:
    return bool(answer.content or answer.tool_calls or answer.reasoning)


def _message(message: StoredMessage) -> Message:
    return Message(message.role, message.content, message.reasoning, message.tool_calls, message.tool_call_id)
