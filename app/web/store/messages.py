"""Single messages: reading, storing a growing answer, deleting a message with its replies."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, Connection, Row, delete, insert, select, update

from app.contract.conversations import StoredMessage
from app.web.store.conversations import row_of
from app.web.store.database import Database
from app.web.store.errors import NotFoundError
from app.web.store.tables import conversations, message_of, message_values, messages

LOST_EVENTS = 10_000
"""More events than a turn has between two stores.

A reader may have seen events that were never stored. The `seq` of an interrupted answer jumps over theirs, so that no
later event has the number of one of them.
"""


class Messages:
    """Each method is one transaction. They raise NotFoundError for an unknown id, and StoreError as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, message_id: str) -> StoredMessage:
        """One message."""
        with self._database.read() as connection:
            return message_of(message_row(connection, message_id))

    def below(self, message_id: str) -> tuple[str, ...]:
        """The ids of a message and of all messages below it."""
        with self._database.read() as connection:
            message_row(connection, message_id)
            return tuple(connection.scalars(select(_subtree(message_id).c.id)))

    def store(self, message: StoredMessage) -> None:
        """Stores an answer that still grows. Does nothing if it was deleted meanwhile."""
        with self._database.write() as connection:
            values = message_values(message)
            this = messages.c.id == message.id
            connection.execute(update(messages).where(this).values(**values))

    def end(self, message: StoredMessage, now: float) -> None:
        """Stores an answer that has ended. Its conversation moves up in the list; `now` is Unix time, seconds."""
        with self._database.write() as connection:
            row = connection.execute(select(messages.c.conversation_id).where(messages.c.id == message.id)).first()
            if row is None:
                return
            connection.execute(update(messages).where(messages.c.id == message.id).values(**message_values(message)))
            this = conversations.c.id == row.conversation_id
            connection.execute(update(conversations).where(this).values(updated_at=now))

    def delete(self, message_id: str) -> None:
        """Deletes it with all messages below it. A branch that ended there then ends at the newest message left."""
        with self._database.write() as connection:
            row = message_row(connection, message_id)
            deleted = tuple(connection.scalars(select(_subtree(message_id).c.id)))
            leaf_id = row_of(connection, row.conversation_id).leaf_id
            connection.execute(delete(messages).where(messages.c.id.in_(select(_subtree(message_id).c.id))))
            if leaf_id in deleted:
                leaf = _newest(connection, row.conversation_id, row.parent_id)
                this = conversations.c.id == row.conversation_id
                connection.execute(update(conversations).where(this).values(leaf_id=leaf))

    def interrupt_all(self) -> int:
        """Marks answers that an earlier process left `writing` as interrupted. Returns their number."""
        values = {"state": "interrupted", "seq": messages.c.seq + LOST_EVENTS}
        with self._database.write() as connection:
            return connection.execute(update(messages).where(messages.c.state == "writing").values(**values)).rowcount


def message_row(connection: Connection, message_id: str) -> Row[Any]:
    """The row of a message. Raises NotFoundError."""
    row = connection.execute(select(messages).where(messages.c.id == message_id)).first()
    if row is None:
        raise NotFoundError("There is no such message; it may have been deleted.", "message_not_found")
    return row


def insert_message(connection: Connection, message: StoredMessage, conversation_id: str) -> None:
    """Adds a message. Its parent must exist."""
    connection.execute(insert(messages).values(**message_values(message), conversation_id=conversation_id))


def branch_to(connection: Connection, message_id: str) -> tuple[StoredMessage, ...]:
    """The messages from the first one to this one."""
    this = messages.alias("this")
    up = select(this.c.n, this.c.parent_id).where(this.c.id == message_id).cte("up", recursive=True)
    above = messages.alias("above")
    up = up.union_all(select(above.c.n, above.c.parent_id).where(above.c.id == up.c.parent_id))
    query = select(messages).join(up, messages.c.n == up.c.n).order_by(messages.c.n)
    return tuple(map(message_of, connection.execute(query)))


def _subtree(message_id: str) -> CTE:
    this = messages.alias("this")
    down = select(this.c.n, this.c.id).where(this.c.id == message_id).cte("down", recursive=True)
    child = messages.alias("child")
    return down.union_all(select(child.c.n, child.c.id).where(child.c.parent_id == down.c.id))


def _newest(connection: Connection, conversation_id: str, below: str | None) -> str | None:
    """The newest message below one, or of the conversation. It has no children, since they would be newer."""
    query = select(messages.c.id).where(messages.c.conversation_id == conversation_id)
    if below is not None:
        query = query.where(messages.c.n.in_(select(_subtree(below).c.n)))
    return connection.scalar(query.order_by(messages.c.n.desc()).limit(1))
