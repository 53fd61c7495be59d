"""The tables, and conversion between their rows and the contract's dataclasses."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Boolean, Column, Double, ForeignKey, Index, Integer, MetaData, Row, Table, Text, text

from app.contract.codec import from_json, to_json
from app.contract.conversations import ChatSettings, ConversationHead, MessageError, StoredMessage

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("settings", Text, nullable=False),
    Column("leaf_id", Text),
    Index("conversations_in_order", "pinned", "updated_at", "n"),
)

messages = Table(
    "messages",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("parent_id", Text, ForeignKey("messages.id")),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("tool_calls", Text, nullable=False),
    Column("tool_call_id", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("tokens_per_second", Double),
    Column("seq", Integer, nullable=False),
    Index("messages_of_conversation", "conversation_id", "n"),
    Index("messages_of_parent", "parent_id"),
    Index("messages_being_written", "state", sqlite_where=text("state = 'writing'")),
)
"""`n` grows with every message: parents come before children, older siblings before younger ones."""

HEAD = tuple(conversations.c[name] for name in ("id", "title", "pinned", "created_at", "updated_at"))


def head_of(row: Row[Any]) -> ConversationHead:
    """A conversation's row as the list shows it."""
    return ConversationHead(row.id, row.title, row.pinned, row.created_at, row.updated_at)


def settings_of(row: Row[Any]) -> ChatSettings:
    """The settings in a conversation's row."""
    return from_json(ChatSettings, json.loads(row.settings), "settings")


def settings_text(settings: ChatSettings) -> str:
    """Settings as stored: JSON."""
    return json.dumps(to_json(settings))


def message_of(row: Row[Any]) -> StoredMessage:
    """The message in a row."""
    values = {name: value for name, value in row._mapping.items() if name in StoredMessage.__dataclass_fields__}
    values["tool_calls"] = json.loads(row.tool_calls)
    values["error"] = None
    if row.error_code is not None:
        values["error"] = {"code": row.error_code, "message": row.error_message}
    return from_json(StoredMessage, values, "message")


def message_values(message: StoredMessage) -> dict[str, Any]:
    """A message's columns, without its conversation's id."""
    values = {name: getattr(message, name) for name in StoredMessage.__dataclass_fields__ if name != "error"}
    error: MessageError | None = message.error
    return values | {
        "tool_calls": json.dumps(to_json(message.tool_calls)),
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
    }
