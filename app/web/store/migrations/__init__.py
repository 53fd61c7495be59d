"""Alembic's migrations of the conversations' database. A migration that was released is never changed."""
