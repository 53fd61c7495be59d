"""Makes the engine's request from a branch of a conversation and its settings."""

from __future__ import annotations

from collections.abc import Iterable

from app.contract.conversations import ChatSettings, StoredMessage
from app.contract.wire import ChatRequest, Message, SamplingParams


def chat_request(
    request_id: str, branch: Iterable[StoredMessage], settings: ChatSettings, *, continues: bool
) -> ChatRequest:
    """The request for an answer to the branch's last message; with `continues` that is the answer to continue.

    Empty answers are left out, so an answer that was interrupted before its first token starts anew.
    """
    shown = [message for message in branch if message.role != "assistant" or _has_content(message)]
    messages = [_message(message) for message in shown]
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
        continue_answer=continues and shown[-1].role == "assistant",
    )


def _has_content(answer: StoredMessage) -> bool:
    return bool(answer.content or answer.tool_calls or answer.reasoning)


def _message(message: StoredMessage) -> Message:
    return Message(message.role, message.content, message.reasoning, message.tool_calls, message.tool_call_id)
