"""Which conversations hold a text, in their title or in a message."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, or_, select, text

from app.web.store.tables import conversations, messages

_GRAM = 3
"""Characters of an entry of the index; shorter texts are looked for in the messages themselves."""


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
