"""Taking conversations in that were exported before, here or elsewhere: all of them, or none."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection, insert, select

from app.contract.conversations import Conversation, ConversationHead
from app.web.store.conversations import insert_conversation
from app.web.store.database import Database
from app.web.store.tables import conversations, message_values, messages

_AT_ONCE = 500
"""Ids asked for, or rows added, by one statement."""


class Transfer:
    """Adds whole conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, given: Iterable[Conversation]) -> tuple[ConversationHead, ...]:
        """Adds conversations whose trees were checked. One with an id that is taken gets new ids throughout.

        Raises:
            ApiError: 503 and 507 as `Database`; nothing was added.
        """
        added = []
        with self._database.write() as connection:
            for conversation in given:
                free = conversation if _is_free(connection, conversation) else renewed(conversation)
                _insert(connection, free)
                added.append(free.head)
        return tuple(added)


def renewed(conversation: Conversation) -> Conversation:
    """The same with new ids."""
    ids = {message.id: str(uuid.uuid4()) for message in conversation.messages}
    return Conversation(
        head=replace(conversation.head, id=str(uuid.uuid4())),
        settings=conversation.settings,
        leaf_id=ids[conversation.leaf_id] if conversation.leaf_id else None,
        messages=tuple(
            replace(message, id=ids[message.id], parent_id=ids[message.parent_id] if message.parent_id else None)
            for message in conversation.messages
        ),
    )


def _is_free(connection: Connection, conversation: Conversation) -> bool:
    query = select(conversations.c.n).where(conversations.c.id == conversation.head.id)
    if connection.execute(query).first() is not None:
        return False
    ids = [message.id for message in conversation.messages]
    for start in range(0, len(ids), _AT_ONCE):
        query = select(messages.c.n).where(messages.c.id.in_(ids[start : start + _AT_ONCE])).limit(1)
        if connection.execute(query).first() is not None:
            return False
    return True


def _insert(connection: Connection, conversation: Conversation) -> None:
    insert_conversation(connection, conversation)
    rows = [message_values(message) | {"conversation_id": conversation.head.id} for message in conversation.messages]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(insert(messages), rows[start : start + _AT_ONCE])
