"""The conversations' API without gunicorn: bodies checked by name, hostile text in every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from app.contract.conversations import ChatSettings
from app.contract.limits import LARGEST_MAX_NUM_SEQS, QUEUE_LIMIT, THREADS_BESIDE_STREAMS
from app.web.factory import create_app
from tests.conversations import Chats, new_id, over_flask, question
from tests.processes.conversing import eventually
from tests.processes.fake_engine import FakeEngine
from tests.processes.web import temporary_folder, write_config, write_status
from tests.unit.web_client import web_client

ALL = "/api/conversations"
HOSTILE = [
    "'; DROP TABLE messages; --",
    '" OR ""="',
    "%' UNION SELECT * FROM conversations --",
    "\\'; DELETE FROM conversations; --",
    "𝒳\u202e\u2028\r\n\t</script>{{7*7}}",
]


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    with web_client() as (client, _):
        yield client


@pytest.fixture
def chats(client: FlaskClient) -> Chats:
    return Chats(over_flask(client))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "id"),
        ({"id": 7}, "id"),
        ({"id": "x"}, "id"),
        ({"id": "A0000000-0000-4000-8000-000000000000"}, "id"),
        ({"id": "a0000000000040008000000000000000"}, "id"),
        ({"id": new_id(), "title": "x"}, "title"),
        ({"id": new_id(), "settings": []}, "settings"),
        ({"id": new_id(), "settings": {"temprature": 1}}, "settings.temprature"),
        ({"id": new_id(), "settings": {"temperature": 3}}, "settings.temperature"),
        ({"id": new_id(), "settings": {"top_p": 0}}, "settings.top_p"),
        ({"id": new_id(), "settings": {"top_k": 1.5}}, "settings.top_k"),
        ({"id": new_id(), "settings": {"seed": 2**64}}, "settings.seed"),
        ({"id": new_id(), "settings": {"max_tokens": 0}}, "settings.max_tokens"),
        ({"id": new_id(), "settings": {"enable_thinking": "yes"}}, "settings.enable_thinking"),
        ({"id": new_id(), "settings": {"system_prompt": "\ud83d"}}, "settings.system_prompt"),
        ({"id": new_id(), "settings": {"system_prompt": "x" * 1_000_001}}, "settings.system_prompt"),
    ],
)
def test_a_new_conversation_is_checked_by_name(chats: Chats, body: Any, param: str) -> None:
    status, _, named = chats.refused("POST", ALL, body)
    assert (status, named) == (400, param)
    assert chats.titles() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "answer_id"),
        ({"answer_id": new_id()}, "content"),
        ({"answer_id": new_id(), "content": "x"}, "question_id"),
        ({"answer_id": new_id(), "question_id": new_id()}, "question_id"),
        ({**question("x"), "content": " \n"}, "content"),
        ({**question("x"), "content": ["x"]}, "content"),
        ({**question("x"), "content": "a\0b"}, "content"),
        ({**question("x"), "parent_id": new_id()}, "parent_id"),
        ({**question("x"), "continues": new_id()}, "continues"),
        ({**question("x"), "seq": -1}, "seq"),
        ({**question("x"), "model": "x"}, "model"),
        ({"answer_id": (one := new_id()), "question_id": one, "content": "x"}, "answer_id"),
        ({"answer_id": one, "continues": one}, "continues"),
        ({"answer_id": one, "continues": one, "content": "x", "question_id": new_id()}, "question_id"),
    ],
)
def test_a_turn_is_checked_by_name_and_nothing_is_stored(chats: Chats, body: Any, param: str) -> None:
    made = chats.create()
    status, _, named = chats.refused("POST", f"{ALL}/{made}/turns", body)
    assert (status, named) == (400, param)
    assert chats.get(made).messages == ()


def test_questions_follow_answers_and_answers_questions(chats: Chats) -> None:
    made, other = chats.create(), chats.create()
    answer = chats.say(made, "echo one")
    foreign = chats.say(other, "echo two")
    for body in (
        {**question("x"), "parent_id": answer.parent_id},
        {"answer_id": new_id(), "parent_id": answer.id},
        {**question("x"), "parent_id": foreign.id},
    ):
        assert chats.refused("POST", f"{ALL}/{made}/turns", body)[::2] == (400, "parent_id")


def test_what_is_not_there_is_a_404(chats: Chats) -> None:
    made = chats.create()
    for method, path, body in (
        ("GET", f"{ALL}/{new_id()}", None),
        ("PATCH", f"{ALL}/{new_id()}", {"pinned": True}),
        ("GET", f"{ALL}/{new_id()}/export", None),
        ("POST", f"{ALL}/{new_id()}/turns", question("x")),
    ):
        assert chats.refused(method, path, body)[:2] == (404, "conversation_not_found")
    for method, path in (
        ("GET", f"/api/turns/{made}/events"),
        ("POST", f"/api/turns/{new_id()}/stop"),
        ("DELETE", f"/api/messages/{new_id()}"),
        ("DELETE", "/api/messages/x'%20OR%201=1"),
    ):
        assert chats.refused(method, path)[:2] == (404, "message_not_found")
    assert chats.ask("DELETE", f"{ALL}/{new_id()}", None)[0] == 204


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_any_kind_comes_back_as_it_was(chats: Chats, text: str) -> None:
    made = chats.create(system_prompt=text)
    answer = chats.say(made, f"echo {text}")
    title = " ".join(text.split())
    chats.fine("PATCH", f"{ALL}/{made}", {"title": text})
    whole = chats.get(made)
    assert (whole.settings.system_prompt, whole.head.title) == (text, title)
    assert [message.content for message in whole.messages] == [f"echo {text}", "".join(f"{w} " for w in text.split())]
    assert chats.titles(text) == [title]
    exported = chats.fine("GET", f"{ALL}/{made}/export")
    chats.fine("DELETE", f"{ALL}/{made}")
    chats.fine("POST", f"{ALL}/import", exported)
    assert chats.get(made) == whole and chats.message(made, answer.id) == answer


def test_list_parameters_are_checked(chats: Chats) -> None:
    for query, param in (
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limit=0000000019999999999999999999", "limit"),
        ("limit=000000001000", "limit"),
        ("limit=٣", "limit"),
        ("before=1_1_1", "before"),
        (f"search={'x' * 201}", "search"),
    ):
        assert chats.refused("GET", f"{ALL}?{query}")[::2] == (400, param)


def test_changes_leave_the_rest_as_it_is(chats: Chats) -> None:
    made = chats.create(temperature=0.5)
    chats.say(made, "echo hello")
    before = chats.get(made)
    answer = chats.fine("PATCH", f"{ALL}/{made}", {"pinned": True, "title": "  New \n title "})
    assert answer["messages"] == [] and answer["head"]["title"] == "New title"
    chats.fine("PATCH", f"{ALL}/{made}", {"settings": {"top_k": 3}, "leaf_id": before.messages[0].id})
    after = chats.get(made)
    assert after.settings == ChatSettings(top_k=3) and after.head.pinned
    assert (after.messages, after.leaf_id) == (before.messages, before.messages[0].id)
    assert after.head.updated_at == before.head.updated_at
    for body, param in (
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"pinned": 1}, "pinned"),
        ({"leaf_id": new_id()}, "leaf_id"),
        ({"archived": True}, "archived"),
    ):
        assert chats.refused("PATCH", f"{ALL}/{made}", body)[::2] == (400, param)
    assert chats.get(made) == after


def test_a_file_is_named_in_a_header_that_any_server_sends(chats: Chats, client: FlaskClient) -> None:
    made = chats.create()
    chats.say(made, "内存够吗？")
    with client.get(f"{ALL}/{made}/export?format=json") as found:
        name = found.headers["Content-Disposition"]
    assert name.isascii()
    assert "filename=conversation.json" in name
    assert f"filename*=UTF-8''{quote('内存够吗？.json', safe='')}" in name


def test_without_a_database_chats_over_v1_go_on() -> None:
    with temporary_folder() as name:
        folder = Path(name)
        (folder / "berth.db").mkdir()
        config = write_config(folder, folder / "engine.sock")
        write_status(folder, "ready", max_model_len=8192)
        with FakeEngine(folder / "engine.sock"), create_app(config).test_client() as client:
            for method, path, body in (
                ("GET", ALL, None),
                ("POST", ALL, {"id": new_id()}),
                ("POST", f"{ALL}/{new_id()}/turns", question("x")),
                ("DELETE", f"/api/messages/{new_id()}", None),
            ):
                answer = client.open(path, method=method, json=body)
                assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "storage_unavailable")
                assert "Is a directory" in json.dumps(answer.get_json()) and answer.headers["Retry-After"] == "5"
            chat = {"messages": [{"role": "user", "content": "echo hi"}]}
            assert client.post("/v1/chat/completions", json=chat).status_code == 200


def test_as_many_answers_are_written_as_the_engine_has_slots_and_places_in_its_queue() -> None:
    most = QUEUE_LIMIT + LARGEST_MAX_NUM_SEQS
    with web_client(threads=most + THREADS_BESIDE_STREAMS, queue_limit=QUEUE_LIMIT) as (client, engine):
        chats = Chats(over_flask(client))
        made = chats.create()
        for _ in range(most):
            chats.turn(made, **question("hang"))
        assert chats.refused("POST", f"{ALL}/{made}/turns", question("hang"))[:2] == (429, "too_many_turns")
        eventually(lambda: len(engine.seen) == most, "all answers have reached the engine")
        chats.fine("DELETE", f"{ALL}/{made}")
