"""A full-text index of the messages' trigrams, so that Chinese is found as well.

It has neither text nor positions, so a search checks each hit again. An answer is indexed once it has ended. SQLite
without FTS5 or its trigram tokenizer has no index; search then reads the messages themselves.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ENTER = "INSERT INTO messages_index (rowid, content) VALUES (new.n, new.content);"
_LEAVE = "INSERT INTO messages_index (messages_index, rowid, content) VALUES ('delete', old.n, old.content);"
_RESTED, _RESTS = "old.state <> 'writing'", "new.state <> 'writing'"
_STATEMENTS = (
    "CREATE VIRTUAL TABLE messages_index USING fts5("
    "content, content = 'messages', content_rowid = 'n', tokenize = 'trigram', detail = 'none')",
    f"CREATE TRIGGER messages_index_insert AFTER INSERT ON messages WHEN {_RESTS} BEGIN {_ENTER} END",
    f"CREATE TRIGGER messages_index_delete AFTER DELETE ON messages WHEN {_RESTED} BEGIN {_LEAVE} END",
    "CREATE TRIGGER messages_index_begin AFTER UPDATE OF content, state ON messages "
    f"WHEN {_RESTED} AND NOT {_RESTS} BEGIN {_LEAVE} END",
    "CREATE TRIGGER messages_index_end AFTER UPDATE OF content, state ON messages "
    f"WHEN NOT {_RESTED} AND {_RESTS} BEGIN {_ENTER} END",
    "CREATE TRIGGER messages_index_change AFTER UPDATE OF content, state ON messages "
    f"WHEN {_RESTED} AND {_RESTS} BEGIN {_LEAVE} {_ENTER} END",
    "INSERT INTO messages_index (rowid, content) SELECT n, content FROM messages WHERE state <> 'writing'",
)


def upgrade() -> None:
    """Creates the index and the triggers that maintain it, and fills it."""
    connection = op.get_bind()
    if _has_trigrams(connection):
        for statement in _STATEMENTS:
            connection.exec_driver_sql(statement)


def _has_trigrams(connection: sa.Connection) -> bool:
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE VIRTUAL TABLE trial USING fts5(x, tokenize = 'trigram')")
            connection.exec_driver_sql("DROP TABLE trial")
    except sa.exc.OperationalError as error:
        if "no such" not in str(error.orig):
            raise
        return False
    return True
