"""Migrations from the first schema on, and files that can't be used: each says which it is, none is harmed."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.contract.conversations import ChatSettings, MessageError, NewConversation
from app.contract.wire import ToolCall
from app.web.store.database import connect_for_migration
from app.web.store.errors import UnavailableError
from app.web.store.lazy_store import LazyStore
from app.web.store.messages import LOST_EVENTS
from app.web.store.schema import MIGRATIONS, upgrade
from app.web.store.sqlite_file import REVISIONS, revision_of
from app.web.store.startup_migration import migrate_in_child
from app.web.store.store import Store
from app.web.store.tables import metadata
from tests.conversations import new_id
from tests.paths import FIXTURES

FIRST = FIXTURES / "conversations_schema_1.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "berth.db"


def make_first(path: Path) -> list[tuple[object, ...]]:
    """A file as the first schema's code left it; returns its messages."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST.read_text(encoding="utf-8"))
        return connection.execute("SELECT * FROM messages ORDER BY n").fetchall()


def test_the_list_of_revisions_is_alembics() -> None:
    scripts = list(ScriptDirectory(str(MIGRATIONS)).walk_revisions())
    assert tuple(script.revision for script in scripts[::-1]) == REVISIONS


def test_the_migrations_make_the_tables_that_the_code_uses(path: Path) -> None:
    Store(path).close()
    with connect_for_migration(path) as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or not name.startswith("messages_index")},
        )
        assert compare_metadata(context, metadata) == []


def test_the_dump_is_what_the_first_migration_makes(path: Path, tmp_path: Path) -> None:
    make_first(path)
    with connect_for_migration(tmp_path / "made.db") as connection:
        upgrade(connection, REVISIONS[0])
    schemas = []
    for file in (path, tmp_path / "made.db"):
        with closing(sqlite3.connect(file)) as connection:
            schemas.append(sorted(connection.execute("SELECT name, sql FROM sqlite_master").fetchall(), key=str))
    assert schemas[0] == schemas[1]


def test_an_upgrade_from_the_first_schema_keeps_everything_and_finds_it(path: Path) -> None:
    before = make_first(path)
    store = Store(path)
    with closing(sqlite3.connect(path)) as connection:
        after = connection.execute("SELECT * FROM messages ORDER BY n").fetchall()
    assert after[:-1] == before[:-1]
    assert after[-1] == (*before[-1][:7], "interrupted", *before[-1][8:-1], 4 + LOST_EVENTS)
    page = store.conversations.page("", None, 10).conversations
    assert [(head.title, head.pinned) for head in page] == [
        ("天气怎么样？", True), ("", False), ("Tell me a story", False),
    ]  # fmt: skip
    weather = store.conversations.get(page[0].id)
    assert weather.settings == ChatSettings(
        system_prompt="你是一个助手。", temperature=0.5, top_k=40, enable_thinking=True
    )
    assert weather.head.updated_at == 1700000060.25 and weather.leaf_id == weather.messages[3].id
    assert weather.messages[2].error == MessageError("queue_full", "The queue is full.")
    assert weather.messages[3].tool_calls == (ToolCall("call_1", "weather", '{"city": "北京"}'),)
    for wanted, title in (("最高气温", page[0].title), ("upon a", page[2].title), ("a llama", page[2].title)):
        assert [head.title for head in store.conversations.page(wanted, None, 10).conversations] == [title]
    store.close()


def test_an_upgrade_that_breaks_off_leaves_the_first_schema(path: Path) -> None:
    before = make_first(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE messages_index (in_the_way)")  # met in the middle of the second migration
    with pytest.raises(UnavailableError, match="messages_index"):
        Store(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM messages ORDER BY n").fetchall() == before
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall() == []
        connection.execute("DROP TABLE messages_index")
    assert revision_of(path) == REVISIONS[0]
    Store(path).close()
    assert revision_of(path) == REVISIONS[-1]


def test_the_start_migrates_in_a_child_and_leaves_a_current_file_alone(path: Path) -> None:
    make_first(path)
    migrate_in_child(path)
    assert revision_of(path) == REVISIONS[-1]
    before = path.stat().st_mtime_ns
    migrate_in_child(path)
    assert path.stat().st_mtime_ns == before


def newer(path: Path) -> None:
    make_first(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def damaged(path: Path) -> None:
    make_first(path)
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (newer, "written by a newer Berth.*9999"),
        (damaged, "damaged"),
        (lambda path: path.write_text("dear diary, " * 1000), "not an SQLite database"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("/nowhere/berth.db"), "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_once_and_left_as_it_is(
    path: Path, caplog: pytest.LogCaptureFixture, make: object, why: str
) -> None:
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    store = LazyStore(path)
    for _ in range(3):
        with pytest.raises(UnavailableError, match=why) as caught:
            store.open()
        assert caught.value.code == "storage_unavailable"
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_file_that_is_repaired_is_opened_without_a_restart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.store.lazy_store.RETRY_SECONDS", 0.0)
    path.mkdir()
    store = LazyStore(path)
    with pytest.raises(UnavailableError):
        store.open()
    path.rmdir()
    assert store.open().conversations.page("", None, 1).conversations == ()
    store.close()


@pytest.mark.parametrize("was_written_ahead", [False, True])
def test_a_volume_without_shared_memory_gets_a_rollback_journal(
    path: Path, caplog: pytest.LogCaptureFixture, was_written_ahead: bool
) -> None:
    """A directory where the shared memory should be: SQLite can't make it, as on some network volumes."""
    if was_written_ahead:
        Store(path).close()
    path.with_name("berth.db-shm").mkdir()
    store = Store(path)
    made = store.conversations.create(NewConversation(new_id())).head.id
    store.close()
    again = Store(path)
    assert again.conversations.get(made).head.id == made
    again.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert "no write-ahead log on this volume" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_directory_that_cannot_be_written_is_said(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(UnavailableError, match="Permission denied"):
            Store(path)
    finally:
        path.parent.chmod(0o700)
