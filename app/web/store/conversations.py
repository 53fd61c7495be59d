"""Conversations as a whole: the list, one of them, and what changes about it."""

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
from app.web.http.errors import ApiError, bad_field
from app.web.store.database import Database
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
"""Characters of an entry of the index; shorter texts are looked for in the messages themselves."""


@dataclass(frozen=True)
class Place:
    """Where a part of the list ends: the values that it is ordered by."""

    pinned: bool
    updated_at: float
    n: int

    def __str__(self) -> str:
        return f"{self.pinned:d}_{self.updated_at!r}_{self.n}"


def read_place(value: str) -> Place:
    """The place that an earlier part of the list named.

    Raises:
        ApiError: 400, none did.
    """
    try:
        pinned, updated_at, n = value.split("_")
        place = Place(bool(int(pinned)), float(updated_at), int(n))
    except ValueError:
        raise bad_field("before", "is not what an earlier part of the list said") from None
    if str(place) != value or not math.isfinite(place.updated_at) or abs(place.n) >= 2**63:
        raise bad_field("before", "is not what an earlier part of the list said")
    return place


class Conversations:
    """Each method is one transaction and raises `ApiError`: 404 for one that isn't there, 503 and 507 as `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, search: str, before: str | None, limit: int) -> ConversationPage:
        """A part of the list: pinned ones first, then those that were talked in last; 400 for a strange `before`."""
        behind = None if before is None else read_place(before)
        c = conversations.c
        order = (c.pinned, c.updated_at, c.n)
        query: Select[Any] = select(*HEAD, c.n).order_by(*(column.desc() for column in order)).limit(limit + 1)
        if behind is not None:
            query = query.where(tuple_(*order) < (behind.pinned, behind.updated_at, behind.n))
        with self._database.read() as connection:
            if search:
                query = query.where(holds(connection, search))
            rows = connection.execute(query).all()
        shown = rows[:limit]
        last = Place(shown[-1].pinned, shown[-1].updated_at, shown[-1].n) if len(rows) > limit else None
        return ConversationPage(tuple(head_of(row) for row in shown), str(last) if last else None)

    def get(self, conversation_id: str) -> Conversation:
        """All of one."""
        with self._database.read() as connection:
            row = row_of(connection, conversation_id)
            return conversation_of(row, messages_of(connection, conversation_id))

    def ids(self) -> tuple[str, ...]:
        """All there are, in the list's order."""
        order = (conversations.c.pinned, conversations.c.updated_at, conversations.c.n)
        with self._database.read() as connection:
            query = select(conversations.c.id).order_by(*(column.desc() for column in order))
            return tuple(connection.scalars(query))

    def create(self, new: NewConversation) -> Conversation:
        """A new, empty one; where it was made before, as it is now."""
        now = time.time()
        head = ConversationHead(new.id, "", False, now, now)
        with self._database.write() as connection:
            found = connection.execute(select(conversations).where(conversations.c.id == new.id)).first()
            if found is not None:
                return conversation_of(found, messages_of(connection, new.id))
            insert_conversation(connection, Conversation(head, new.settings, None, ()))
        return Conversation(head, new.settings, None, ())

    def change(self, conversation_id: str, change: ConversationChange) -> Conversation:
        """Changes what is not None; answers without the messages."""
        values: dict[str, Any] = {"title": change.title, "pinned": change.pinned, "leaf_id": change.leaf_id}
        if change.settings is not None:
            values["settings"] = settings_text(change.settings)
        values = {name: value for name, value in values.items() if value is not None}
        with self._database.write() as connection:
            row_of(connection, conversation_id)
            if change.leaf_id is not None and not _is_in(connection, change.leaf_id, conversation_id):
                raise bad_field("leaf_id", "is no message of this conversation")
            if values:
                this = conversations.c.id == conversation_id
                connection.execute(update(conversations).where(this).values(**values))
            return conversation_of(row_of(connection, conversation_id), ())

    def delete(self, conversation_id: str) -> None:
        """Deletes it with all its messages; one that isn't there is deleted already."""
        with self._database.write() as connection:
            connection.execute(delete(messages).where(messages.c.conversation_id == conversation_id))
            connection.execute(delete(conversations).where(conversations.c.id == conversation_id))


def row_of(connection: Connection, conversation_id: str) -> Row[Any]:
    """The row of a conversation; a 404 where there is none."""
    row = connection.execute(select(conversations).where(conversations.c.id == conversation_id)).first()
    if row is None:
        raise ApiError(404, "There is no such conversation; it may have been deleted.", "conversation_not_found")
    return row


def messages_of(connection: Connection, conversation_id: str) -> tuple[StoredMessage, ...]:
    """All messages of a conversation, parents before children."""
    query = select(messages).where(messages.c.conversation_id == conversation_id).order_by(messages.c.n)
    return tuple(map(message_of, connection.execute(query)))


def conversation_of(row: Row[Any], its_messages: tuple[StoredMessage, ...]) -> Conversation:
    """A conversation's row and messages, put together."""
    return Conversation(head_of(row), settings_of(row), row.leaf_id, its_messages)


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
    """How many messages a conversation has."""
    query = select(func.count()).select_from(messages).where(messages.c.conversation_id == conversation_id)
    return connection.scalar(query) or 0


def _is_in(connection: Connection, message_id: str, conversation_id: str) -> bool:
    query = select(messages.c.n).where(messages.c.id == message_id, messages.c.conversation_id == conversation_id)
    return connection.execute(query).first() is not None


def has_index(connection: Connection) -> bool:
    """Whether this SQLite could make the index."""
    found = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'messages_index'").first()
    return found is not None


def holds(connection: Connection, wanted: str) -> ColumnElement[bool]:
    """The condition on `conversations`. Capitals don't matter where they are ASCII's."""
    containing = _containing(wanted)
    if len(wanted) >= _GRAM and has_index(connection):
        containing = containing.where(messages.c.n.in_(_candidates(wanted)))
    return or_(_like(conversations.c.title, wanted), conversations.c.id.in_(containing))


def _containing(wanted: str) -> Select[Any]:
    return select(messages.c.conversation_id).where(_like(messages.c.content, wanted))


def _like(column: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    escaped = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(f"%{escaped}%", escape="\\")


def _candidates(wanted: str) -> Select[Any]:
    """Messages that hold all threes of the text somewhere. The index knows no positions, so it takes no phrases."""
    threes = dict.fromkeys(wanted[at : at + _GRAM] for at in range(len(wanted) - _GRAM + 1))
    quoted = " ".join('"' + three.replace('"', '""') + '"' for three in threes)
    found = text("SELECT rowid AS n FROM messages_index WHERE messages_index MATCH :threes")
    return select(found.bindparams(threes=quoted).columns(messages.c.n).subquery("found").c.n)
