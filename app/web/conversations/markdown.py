"""Exports a conversation as Markdown: the branch that was shown last."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from app.contract.conversations import Conversation, StoredMessage

Language = Literal["en", "zh"]

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "user": "You",
        "assistant": "Answer",
        "tool": "Tool",
        "reasoning": "Thinking",
        "untitled": "Conversation",
        "stopped": "Stopped here.",
        "length": "Ended here: the limit of tokens was reached.",
        "interrupted": "Interrupted here.",
        "writing": "Still being written.",
        "failed": "Failed",
    },
    "zh": {
        "user": "你",
        "assistant": "回答",
        "tool": "工具",
        "reasoning": "思考过程",
        "untitled": "对话",
        "stopped": "在此停止。",
        "length": "已达到长度上限，在此结束。",
        "interrupted": "在此中断。",
        "writing": "仍在生成。",
        "failed": "失败",
    },
}


def markdown(conversation: Conversation, language: Language) -> str:
    """Title, date, and each message under a heading of its own."""
    words = _WORDS[language]
    created = datetime.fromtimestamp(conversation.head.created_at, UTC)
    parts = [f"# {conversation.head.title or words['untitled']}", f"{created:%Y-%m-%d %H:%M} UTC"]
    for message in shown_branch(conversation):
        parts += [f"## {words[message.role]}", *_body(message, words)]
    return "\n\n".join(parts) + "\n"


def shown_branch(conversation: Conversation) -> list[StoredMessage]:
    """The messages from the first to the leaf, or to the newest if no branch was shown yet."""
    by_id = {message.id: message for message in conversation.messages}
    newest = conversation.messages[-1].id if conversation.messages else None
    at, branch = conversation.leaf_id or newest, []
    while at is not None:
        branch.append(by_id[at])
        at = by_id[at].parent_id
    return branch[::-1]


def _body(message: StoredMessage, words: dict[str, str]) -> Iterator[str]:
    if message.reasoning:
        yield f"<details><summary>{words['reasoning']}</summary>\n\n{message.reasoning.strip()}\n\n</details>"
    if message.content:
        yield message.content.strip()
    for call in message.tool_calls:
        yield f"`{call.name}`\n\n```json\n{call.arguments}\n```"
    if message.error is not None:
        yield f"*{words['failed']}: {message.error.message}*"
    elif message.state in words:
        yield f"*{words[message.state]}*"
