"""An export as it comes back: nothing in it is trusted, and what it would break is refused by name."""

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
)
from app.web.conversations.request import read_content, read_id, read_settings
from app.web.http import fields
from app.web.http.errors import bad_field

MAX_BYTES = 16 * 1024 * 1024
"""Parsed, it takes several times as much memory, which the model has planned for."""
MAX_CONVERSATIONS = 10_000
MAX_MESSAGES = 10_000
"""Of one conversation; so a branch can't be deeper."""
_LATEST = 1e11
"""Seconds: the year 5138."""
_FOLLOWS = {"user": (None, "assistant"), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}
"""Whom a message may answer."""


def read_import(body: dict[str, Any]) -> tuple[Conversation, ...]:
    """All conversations of an export, their trees checked.

    Raises:
        ApiError: 400 naming the place.
    """
    try:
        export = from_json(Export, body, "export")
    except ContractError as error:
        message = str(error).removeprefix("export.")
        raise bad_field(message.partition(" ")[0], message.partition(" ")[2]) from None
    if len(export.conversations) > MAX_CONVERSATIONS:
        raise bad_field("conversations", f"holds {len(export.conversations)}; at most {MAX_CONVERSATIONS} at a time")
    for at, raw in enumerate(body["conversations"]):
        read_settings(f"conversations[{at}].settings", raw["settings"])
    return tuple(_conversation(f"conversations[{at}]", given) for at, given in enumerate(export.conversations))


def _conversation(path: str, given: Conversation) -> Conversation:
    head = given.head
    read_id(f"{path}.head.id", head.id)
    if len(fields.text(f"{path}.head.title", head.title)) > MAX_TITLE_CHARACTERS or not _on_one_line(head.title):
        raise bad_field(f"{path}.head.title", f"should be one line of at most {MAX_TITLE_CHARACTERS} characters")
    for name in ("created_at", "updated_at"):
        fields.number(f"{path}.head.{name}", getattr(head, name), 0, _LATEST)
    if len(given.messages) > MAX_MESSAGES:
        raise bad_field(f"{path}.messages", f"holds {len(given.messages)}; at most {MAX_MESSAGES} are accepted")
    messages = tuple(_tree(f"{path}.messages", given.messages))
    if given.leaf_id is not None and all(message.id != given.leaf_id for message in messages):
        raise bad_field(f"{path}.leaf_id", "is no message of this conversation")
    return replace(given, messages=messages)


def _tree(path: str, messages: tuple[StoredMessage, ...]) -> Iterator[StoredMessage]:
    """Each message after the one that it answers; that alone rules out circles."""
    seen: dict[str, str] = {}
    for at, message in enumerate(messages):
        here = f"{path}[{at}]"
        _check_message(here, message)
        if message.id in seen:
            raise bad_field(f"{here}.id", "is the id of a message before")
        if message.parent_id is not None and message.parent_id not in seen:
            raise bad_field(f"{here}.parent_id", "is not the id of a message before")
        answered = seen[message.parent_id] if message.parent_id is not None else None
        if answered not in _FOLLOWS[message.role]:
            raise bad_field(f"{here}.role", f"{message.role} can't follow {answered or 'nothing'}")
        seen[message.id] = message.role
        yield replace(message, state="interrupted") if message.state == "writing" else message


def _check_message(path: str, message: StoredMessage) -> None:
    read_id(f"{path}.id", message.id)
    for name in ("content", "reasoning"):
        read_content(f"{path}.{name}", getattr(message, name))
    fields.number(f"{path}.created_at", message.created_at, 0, _LATEST)
    fields.number(f"{path}.tokens_per_second", message.tokens_per_second, 0, _LATEST)
    for name in ("prompt_tokens", "completion_tokens", "seq"):
        fields.integer(f"{path}.{name}", getattr(message, name), 0, MAX_SEQ)
    if len(message.tool_calls) > MOST_CALLS:
        raise bad_field(f"{path}.tool_calls", f"holds {len(message.tool_calls)}; at most {MOST_CALLS} are accepted")
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
