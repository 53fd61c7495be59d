"""Conversations in an SQLite file. The first request that needs them imports SQLAlchemy, through `lazy_store`."""
