"""Conversations and their messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "conversations",
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("leaf_id", sa.Text),
    )
    op.create_index("conversations_in_order", "conversations", ["pinned", "updated_at", "n"])
    op.create_table(
        "messages",
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("conversation_id", sa.Text, sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("parent_id", sa.Text, sa.ForeignKey("messages.id")),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reasoning", sa.Text, nullable=False),
        sa.Column("tool_calls", sa.Text, nullable=False),
        sa.Column("tool_call_id", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("tokens_per_second", sa.Double),
        sa.Column("seq", sa.Integer, nullable=False),
    )
    op.create_index("messages_of_conversation", "messages", ["conversation_id", "n"])
    op.create_index("messages_of_parent", "messages", ["parent_id"])
    op.create_index("messages_being_written", "messages", ["state"], sqlite_where=sa.text("state = 'writing'"))
