"""The store by itself: order and paging, search in both languages, trees, what a killed process leaves."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.contract.conversations import (
    ChatSettings,
    Conversation,
    ConversationChange,
    ConversationHead,
    NewConversation,
    NewTurn,
    StoredMessage,
)
from app.web.store.errors import ConflictError, InvalidFieldError
from app.web.store.messages import LOST_EVENTS
from app.web.store.store import Store
from tests.conversations import new_id
from tests.paths import TOP


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "berth.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def begin(store: Store, conversation_id: str, content: str, parent_id: str | None = None) -> StoredMessage:
    new = NewTurn(new_id(), parent_id, new_id(), content)
    return store.begin_turn(conversation_id, new, running=False).turn.answer


def talk(store: Store, content: str, answer: str = "yes", settings: ChatSettings | None = None) -> str:
    """A conversation of one question and its answer; returns its id."""
    made = store.conversations.create(NewConversation(new_id(), settings or ChatSettings())).head.id
    message = begin(store, made, content)
    store.messages.end(replace(message, content=answer, state="done"), message.created_at)
    return made


def found(store: Store, wanted: str) -> set[str]:
    return {head.id for head in store.conversations.page(wanted, None, 200).conversations}


def test_the_file_is_its_owners_alone_and_logs_ahead(store: Store, path: Path) -> None:
    talk(store, "hello")
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {"berth.db", "berth.db-wal", "berth.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_an_older_file_of_wider_mode_becomes_its_owners(path: Path) -> None:
    Store(path).close()
    path.chmod(0o644)
    Store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pages_hold_each_conversation_once_pinned_ones_first(store: Store) -> None:
    made = [talk(store, f"question {number}") for number in range(11)]
    for number in (2, 7):
        store.conversations.change(made[number], ConversationChange(pinned=True))
    last = begin(store, made[0], "again", store.conversations.get(made[0]).messages[-1].id)
    seen: list[ConversationHead] = []
    before = None
    while True:
        page = store.conversations.page("", before, 3)
        assert len(page.conversations) <= 3
        seen += page.conversations
        if (before := page.before) is None:
            break
    order = [made[7], made[2], made[0], *(made[number] for number in (10, 9, 8, 6, 5, 4, 3, 1))]
    assert [head.id for head in seen] == order
    assert store.conversations.get(made[0]).leaf_id == last.id


@pytest.mark.parametrize("strange", ["", "x", "1_2", "1_nan_3", "0_1.0_99999999999999999999", "2_1.0_1", "0_1.0_1 "])
def test_a_cursor_that_no_page_named_is_refused(store: Store, strange: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        store.conversations.page("", strange, 5)
    assert caught.value.param == "before"


SEARCHES = [
    ("天气", {"zh"}), ("天", {"zh"}), ("天气很好", {"zh"}), ("气很", {"zh"}), ("气怎么", set()), ("WEATHER", {"en"}),
    ("eat", {"en"}), ("100%", {"odd"}), ("100_", set()), ("a_b", {"odd"}), ("a%b", set()), ("c:\\new", {"odd"}),
    ("it's \"so\"", {"odd"}), ("'; DROP TABLE messages; --", {"odd"}), ("NEAR(a b)", set()), ("*", set()),
    ("😀 you", {"odd"}), ("my title", {"en"}), ("标题", {"zh"}),
]  # fmt: skip


@pytest.mark.parametrize("indexed", [True, False])
def test_search_finds_both_languages_and_takes_every_character_for_itself(path: Path, indexed: bool) -> None:
    if not indexed:
        without_index(path)
    store = Store(path)
    odd = "100% a_b c:\\new it's \"so\" '; DROP TABLE messages; -- 😀 you"
    made = {
        "zh": talk(store, "今天天气很好", "是的，天气很好。"),
        "en": talk(store, "How is the weather?", "Fine."),
        "odd": talk(store, "x", odd),
    }
    store.conversations.change(made["en"], ConversationChange(title="My Title"))
    store.conversations.change(made["zh"], ConversationChange(title="我的标题"))
    for wanted, where in SEARCHES:
        assert found(store, wanted) == {made[name] for name in where}, wanted
    store.close()


def without_index(path: Path) -> None:
    """A file as an SQLite makes it that has no trigrams."""
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DROP TABLE messages_index")
        connection.commit()


def test_the_index_follows_what_is_written_continued_and_deleted(store: Store, path: Path) -> None:
    made = store.conversations.create(NewConversation(new_id())).head.id
    answer = begin(store, made, "question")
    store.messages.store(replace(answer, content="a llama"))
    store.messages.end(replace(answer, content="a llama and a vicuna", state="stopped"), 1.0)
    assert found(store, "vicuna") == {made}
    again = store.begin_turn(made, NewTurn(answer.id, continues=answer.id), running=False).turn.answer
    store.messages.end(replace(again, content="a llama and a vicuna and an alpaca", state="done"), 2.0)
    assert found(store, "llama") == found(store, "alpaca") == {made}
    store.messages.delete(answer.id)
    assert found(store, "llama") == set() and found(store, "question") == {made}
    store.conversations.delete(made)
    assert found(store, "question") == set()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO messages_index (messages_index, rank) VALUES ('integrity-check', 1)")


def test_what_follows_a_message_goes_with_it_however_deep(store: Store) -> None:
    made = new_id()
    ids = [new_id() for _ in range(3000)]
    chain = tuple(
        StoredMessage(here, above, "user" if number % 2 == 0 else "assistant", str(number), 1.0)
        for number, (here, above) in enumerate(zip(ids, [None, *ids], strict=False))
    )
    head = ConversationHead(made, "deep", False, 1.0, 1.0)
    store.importer.add([Conversation(head, ChatSettings(), ids[-1], chain)])
    newer = begin(store, made, "other", ids[1])
    store.conversations.change(made, ConversationChange(leaf_id=ids[-1]))
    store.messages.delete(ids[2])
    left = store.conversations.get(made)
    assert [message.id for message in left.messages] == [*ids[:2], newer.parent_id, newer.id]
    assert left.leaf_id == newer.id
    store.messages.delete(ids[0])
    assert store.conversations.get(made).messages == () and store.conversations.get(made).leaf_id is None


def test_the_same_request_is_taken_in_once_even_at_the_same_time(store: Store) -> None:
    made = store.conversations.create(NewConversation(new_id())).head.id
    new = NewTurn(new_id(), None, new_id(), "only once")
    fresh: list[bool] = []

    def send() -> None:
        fresh.append(store.begin_turn(made, new, running=False).fresh)

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fresh) == [False] * 11 + [True]
    assert [message.id for message in store.conversations.get(made).messages] == [new.question_id, new.answer_id]


def test_ids_of_other_messages_are_refused_and_nothing_changes(store: Store) -> None:
    first, second = talk(store, "one"), talk(store, "two")
    question, answer = store.conversations.get(first).messages
    clashes = (
        (second, NewTurn(answer.id, None, new_id(), "x")),
        (second, NewTurn(new_id(), None, question.id, "x")),
        (first, NewTurn(answer.id, None, question.id, "other words")),
        (first, NewTurn(answer.id, None, new_id(), "one")),
        (first, NewTurn(answer.id, answer.id)),
    )
    before = [store.conversations.get(made) for made in (first, second)]
    for made, new in clashes:
        with pytest.raises(ConflictError) as caught:
            store.begin_turn(made, new, running=False)
        assert caught.value.code == "id_taken", new
    assert [store.conversations.get(made) for made in (first, second)] == before


LEFT_BEHIND = """
import os, sys
from pathlib import Path
from tests.unit.web.store.test_store import Store, begin, replace, talk

store = Store(Path(sys.argv[1]))
answer = begin(store, talk(store, "one"), "two")
store.messages.store(replace(answer, content="half", seq=5))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_interrupted_at_the_next_start(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_BEHIND, str(path)], cwd=TOP, timeout=60)
    assert done.returncode == -signal.SIGKILL
    store = Store(path)
    (head,) = store.conversations.page("", None, 5).conversations
    kept = store.conversations.get(head.id).messages
    assert [message.content for message in kept] == ["one", "yes", "two", "half"]
    assert (kept[-1].state, kept[-1].seq) == ("interrupted", 5 + LOST_EVENTS)
    store.close()
