"""Reads an exported file. Nothing in it is trusted; each error names the field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

from app.contract.codec import ContractError, from_json
from app.contract.conversations import Conversation, Export, StoredMessage
from app.contract.limits import (
    MAX_CALL_ID_CHARACTERS,
    MAX_CONTENT_CHARACTERS,
    MAX_SEQ,
    MAX_TITLE_CHARACTERS,
    MOST_CALLS,
    MOST_STORED_MESSAGES,
    Range,
)
from app.web.conversations.request import read_content, read_id, read_settings
from app.web.http import fields
from app.web.http.errors import bad_field

MAX_BYTES = 16 * 1024 * 1024
"""Parsed, it takes several times as much memory, and the plan leaves little beside the model."""
MOST_CONVERSATIONS = 10_000
_ANY_NUMBER = Range(0, 1e11)
"""Of times and rates. As Unix time, the end is the year 5138."""
_FOLLOWS = {"user": (None, "assistant"), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}
"""By a message's role: the roles that its parent may have; None is no parent."""


def read_import(body: dict[str, Any]) -> tuple[Conversation, ...]:
    """All conversations of an export, their trees checked.

    Raises:
        ApiError: 400 that names the field.
    """
    try:
        export = from_json(Export, body, "export")
    except ContractError as error:
        message = str(error).removeprefix("export.")
        raise bad_field(message.partition(" ")[0], message.partition(" ")[2]) from None
    if len(export.conversations) > MOST_CONVERSATIONS:
        raise bad_field("conversations", f"has {len(export.conversations)}; at most {MOST_CONVERSATIONS} at a time")
    for index, fields_by_name in enumerate(body["conversations"]):
        read_settings(f"conversations[{index}].settings", fields_by_name["settings"])
    return tuple(_conversation(f"conversations[{n}]", item) for n, item in enumerate(export.conversations))


def _conversation(path: str, conversation: Conversation) -> Conversation:
    head = conversation.head
    read_id(f"{path}.head.id", head.id)
    if len(fields.text(f"{path}.head.title", head.title)) > MAX_TITLE_CHARACTERS or not _on_one_line(head.title):
        raise bad_field(f"{path}.head.title", f"should be one line of at most {MAX_TITLE_CHARACTERS} characters")
    for name in ("created_at", "updated_at"):
        fields.number(f"{path}.head.{name}", getattr(head, name), _ANY_NUMBER)
    if len(conversation.messages) > MOST_STORED_MESSAGES:
        raise bad_field(
            f"{path}.messages", f"has {len(conversation.messages)}; at most {MOST_STORED_MESSAGES} are accepted"
        )
    messages = tuple(_tree(f"{path}.messages", conversation.messages))
    if conversation.leaf_id is not None and all(message.id != conversation.leaf_id for message in messages):
        raise bad_field(f"{path}.leaf_id", "is not a message of this conversation")
    return replace(conversation, messages=messages)


def _tree(path: str, messages: tuple[StoredMessage, ...]) -> Iterator[StoredMessage]:
    """Yields each message after its parent, which rules out cycles."""
    roles: dict[str, str] = {}
    for index, message in enumerate(messages):
        here = f"{path}[{index}]"
        _check_message(here, message)
        if message.id in roles:
            raise bad_field(f"{here}.id", "is the id of an earlier message")
        if message.parent_id is not None and message.parent_id not in roles:
            raise bad_field(f"{here}.parent_id", "is not the id of an earlier message")
        parent_role = roles[message.parent_id] if message.parent_id is not None else None
        if parent_role not in _FOLLOWS[message.role]:
            raise bad_field(f"{here}.role", f"{message.role} can't follow {parent_role or 'nothing'}")
        roles[message.id] = message.role
        yield replace(message, state="interrupted") if message.state == "writing" else message


def _check_message(path: str, message: StoredMessage) -> None:
    read_id(f"{path}.id", message.id)
    for name in ("content", "reasoning"):
        read_content(f"{path}.{name}", getattr(message, name))
    fields.number(f"{path}.created_at", message.created_at, _ANY_NUMBER)
    fields.number(f"{path}.tokens_per_second", message.tokens_per_second, _ANY_NUMBER)
    for name in ("prompt_tokens", "completion_tokens", "seq"):
        fields.integer(f"{path}.{name}", getattr(message, name), 0, MAX_SEQ)
    if len(message.tool_calls) > MOST_CALLS:
        raise bad_field(f"{path}.tool_calls", f"has {len(message.tool_calls)}; at most {MOST_CALLS} are accepted")
    for call in message.tool_calls:
        for field in fields_of(call):
            limit = MAX_CONTENT_CHARACTERS if field.name == "arguments" else MAX_CALL_ID_CHARACTERS
            _short(f"{path}.tool_calls.{field.name}", getattr(call, field.name), limit)
    if message.tool_call_id is not None:
        _short(f"{path}.tool_call_id", message.tool_call_id, MAX_CALL_ID_CHARACTERS)
    if message.error is not None:
        _short(f"{path}.error.code", message.error.code, MAX_CALL_ID_CHARACTERS)
        _short(f"{path}.error.message", message.error.message, MAX_CONTENT_CHARACTERS)


def _short(path: str, value: str, limit: int) -> None:
    if len(fields.text(path, value)) > limit:
        raise bad_field(path, f"is longer than {limit} characters")


def _on_one_line(title: str) -> bool:
    return len(title.splitlines()) <= 1 and "\0" not in title
