"""Adds exported conversations: all of them, or none."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection, insert, select

from app.contract.conversations import Conversation, ConversationHead
from app.web.store.conversations import insert_conversation
from app.web.store.database import Database
from app.web.store.tables import conversations, message_values, messages

_BATCH = 500
"""Ids or rows in one statement."""


class Importer:
    """Adds whole conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, imported: Iterable[Conversation]) -> tuple[ConversationHead, ...]:
        """Adds conversations whose trees were checked. If one has an id that is taken, all its ids are replaced.

        Raises:
            StoreError: as `Database`; nothing was added.
        """
        added = []
        with self._database.write() as connection:
            for conversation in imported:
                if not _is_free(connection, conversation):
                    conversation = with_new_ids(conversation)
                _insert(connection, conversation)
                added.append(conversation.head)
        return tuple(added)


def with_new_ids(conversation: Conversation) -> Conversation:
    """The same conversation, its ids and its messages' ids replaced."""
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
    for start in range(0, len(ids), _BATCH):
        query = select(messages.c.n).where(messages.c.id.in_(ids[start : start + _BATCH])).limit(1)
        if connection.execute(query).first() is not None:
            return False
    return True


def _insert(connection: Connection, conversation: Conversation) -> None:
    insert_conversation(connection, conversation)
    rows = [message_values(message) | {"conversation_id": conversation.head.id} for message in conversation.messages]
    for start in range(0, len(rows), _BATCH):
        connection.execute(insert(messages), rows[start : start + _BATCH])
