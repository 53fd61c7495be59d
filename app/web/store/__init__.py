"""Conversations in a SQLite file. SQLAlchemy is imported by the first request that needs it, see `storage`."""
