"""Conversations: the list, one conversation, its changes, and search."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, or_, select, text, tuple_, update

from app.contract.conversations import (
    Conversation,
    ConversationChange,
    ConversationHead,
    ConversationPage,
    NewConversation,
    StoredMessage,
)
from app.web.store.database import Database
from app.web.store.errors import NotFoundError, invalid_field
from app.web.store.tables import (
    HEAD,
    conversations,
    head_of,
    message_of,
    messages,
    settings_of,
    settings_text,
)

_GRAM = 3
"""Characters of an entry in the index. A shorter text is searched for in the messages themselves."""


@dataclass(frozen=True)
class PageCursor:
    """Where a page of the list ends: the values that the list is ordered by."""

    pinned: bool
    updated_at: float
    n: int

    def __str__(self) -> str:
        return f"{self.pinned:d}_{self.updated_at!r}_{self.n}"


def parse_cursor(value: str) -> PageCursor:
    """The cursor that an earlier page named.

    Raises:
        InvalidFieldError: no page did.
    """
    try:
        pinned, updated_at, n = value.split("_")
        cursor = PageCursor(bool(int(pinned)), float(updated_at), int(n))
    except ValueError:
        raise invalid_field("before", "is not a cursor that a page of the list named") from None
    if str(cursor) != value or not math.isfinite(cursor.updated_at) or abs(cursor.n) >= 2**63:
        raise invalid_field("before", "is not a cursor that a page of the list named")
    return cursor


class Conversations:
    """Each method is one transaction. They raise NotFoundError for an unknown id, and StoreError as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, search: str, before: str | None, limit: int) -> ConversationPage:
        """A page of the list: pinned conversations first, then by their last message, newest first.

        `before` is the cursor of the page before. Raises InvalidFieldError if it is not one.
        """
        cursor = None if before is None else parse_cursor(before)
        c = conversations.c
        order = (c.pinned, c.updated_at, c.n)
        query: Select[Any] = select(*HEAD, c.n).order_by(*(column.desc() for column in order)).limit(limit + 1)
        if cursor is not None:
            query = query.where(tuple_(*order) < (cursor.pinned, cursor.updated_at, cursor.n))
        with self._database.read() as connection:
            if search:
                query = query.where(contains(connection, search))
            rows = connection.execute(query).all()
        shown = rows[:limit]
        last = PageCursor(shown[-1].pinned, shown[-1].updated_at, shown[-1].n) if len(rows) > limit else None
        return ConversationPage(tuple(head_of(row) for row in shown), str(last) if last else None)

    def get(self, conversation_id: str) -> Conversation:
        """One conversation with its messages."""
        with self._database.read() as connection:
            row = row_of(connection, conversation_id)
            return conversation_of(row, messages_of(connection, conversation_id))

    def ids(self) -> tuple[str, ...]:
        """All ids, in the list's order."""
        order = (conversations.c.pinned, conversations.c.updated_at, conversations.c.n)
        with self._database.read() as connection:
            query = select(conversations.c.id).order_by(*(column.desc() for column in order))
            return tuple(connection.scalars(query))

    def create(self, new: NewConversation) -> Conversation:
        """Makes a new, empty conversation. If its id exists already, returns that conversation as it is now."""
        now = time.time()
        head = ConversationHead(new.id, "", False, now, now)
        with self._database.write() as connection:
            row = connection.execute(select(conversations).where(conversations.c.id == new.id)).first()
            if row is not None:
                return conversation_of(row, messages_of(connection, new.id))
            insert_conversation(connection, Conversation(head, new.settings, None, ()))
        return Conversation(head, new.settings, None, ())

    def change(self, conversation_id: str, change: ConversationChange) -> Conversation:
        """Changes the fields that are not None. Returns the conversation without its messages."""
        values: dict[str, Any] = {"title": change.title, "pinned": change.pinned, "leaf_id": change.leaf_id}
        if change.settings is not None:
            values["settings"] = settings_text(change.settings)
        values = {name: value for name, value in values.items() if value is not None}
        with self._database.write() as connection:
            row_of(connection, conversation_id)
            if change.leaf_id is not None and not _is_in(connection, change.leaf_id, conversation_id):
                raise invalid_field("leaf_id", "is not a message of this conversation")
            if values:
                this = conversations.c.id == conversation_id
                connection.execute(update(conversations).where(this).values(**values))
            return conversation_of(row_of(connection, conversation_id), ())

    def delete(self, conversation_id: str) -> None:
        """Deletes it with all its messages. Does nothing if it doesn't exist."""
        with self._database.write() as connection:
            connection.execute(delete(messages).where(messages.c.conversation_id == conversation_id))
            connection.execute(delete(conversations).where(conversations.c.id == conversation_id))


def row_of(connection: Connection, conversation_id: str) -> Row[Any]:
    """The row of a conversation. Raises NotFoundError."""
    row = connection.execute(select(conversations).where(conversations.c.id == conversation_id)).first()
    if row is None:
        raise NotFoundError("There is no such conversation; it may have been deleted.", "conversation_not_found")
    return row


def messages_of(connection: Connection, conversation_id: str) -> tuple[StoredMessage, ...]:
    """All messages of a conversation, parents before children."""
    query = select(messages).where(messages.c.conversation_id == conversation_id).order_by(messages.c.n)
    return tuple(map(message_of, connection.execute(query)))


def conversation_of(row: Row[Any], stored_messages: tuple[StoredMessage, ...]) -> Conversation:
    """A conversation from its row and messages."""
    return Conversation(head_of(row), settings_of(row), row.leaf_id, stored_messages)


def insert_conversation(connection: Connection, conversation: Conversation) -> None:
    """Adds a conversation without its messages."""
    head = conversation.head
    connection.execute(
        insert(conversations).values(
            id=head.id,
            title=head.title,
            pinned=head.pinned,
            created_at=head.created_at,
            updated_at=head.updated_at,
            settings=settings_text(conversation.settings),
            leaf_id=conversation.leaf_id,
        )
    )


def count_of(connection: Connection, conversation_id: str) -> int:
    """The number of messages in a conversation."""
    query = select(func.count()).select_from(messages).where(messages.c.conversation_id == conversation_id)
    return connection.scalar(query) or 0


def _is_in(connection: Connection, message_id: str, conversation_id: str) -> bool:
    query = select(messages.c.n).where(messages.c.id == message_id, messages.c.conversation_id == conversation_id)
    return connection.execute(query).first() is not None


def has_index(connection: Connection) -> bool:
    """Whether the file has the index. SQLite without FTS5 or trigrams can't make one."""
    row = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'messages_index'").first()
    return row is not None


def contains(connection: Connection, search: str) -> ColumnElement[bool]:
    """A condition on `conversations`: title or messages contain the text. ASCII letters match in either case."""
    matches = select(messages.c.conversation_id).where(_like(messages.c.content, search))
    if len(search) >= _GRAM and has_index(connection):
        matches = matches.where(messages.c.n.in_(_candidates(search)))
    return or_(_like(conversations.c.title, search), conversations.c.id.in_(matches))


def _like(column: ColumnElement[str], search: str) -> ColumnElement[bool]:
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(f"%{escaped}%", escape="\\")


def _candidates(search: str) -> Select[Any]:
    """Messages that contain all trigrams of the text. The index has no positions, so it can't match phrases."""
    trigrams = dict.fromkeys(search[start : start + _GRAM] for start in range(len(search) - _GRAM + 1))
    quoted = " ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams)
    query = text("SELECT rowid AS n FROM messages_index WHERE messages_index MATCH :trigrams")
    return select(query.bindparams(trigrams=quoted).columns(messages.c.n).subquery("candidates").c.n)
