"""The conversations' API without gunicorn: bodies checked by name, hostile text in every field, exports, imports."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from app.contract.conversations import ChatSettings
from app.web import conversation_import
from app.web.factory import create_app
from tests.conversations import Chats, new_id, question
from tests.integration.fake_engine import FakeEngine
from tests.integration.web_process import temporary_folder, write_config, write_status
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
    def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = client.open(path, method=method, json=body)
        return answer.status_code, answer.get_json() if answer.is_json else answer.get_data(as_text=True)

    return Chats(ask)


def error(chats: Chats, method: str, path: str, body: Any = None) -> tuple[int, str | None, str | None]:
    status, answer = chats.ask(method, path, body)
    assert set(answer["error"]) == {"message", "type", "param", "code"}, answer
    return status, answer["error"]["code"], answer["error"]["param"]


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
    status, _, named = error(chats, "POST", ALL, body)
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
    status, _, named = error(chats, "POST", f"{ALL}/{made}/turns", body)
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
        assert error(chats, "POST", f"{ALL}/{made}/turns", body)[::2] == (400, "parent_id")


def test_what_is_not_there_is_a_404(chats: Chats) -> None:
    made = chats.create()
    for method, path, body in (
        ("GET", f"{ALL}/{new_id()}", None),
        ("PATCH", f"{ALL}/{new_id()}", {"pinned": True}),
        ("GET", f"{ALL}/{new_id()}/export", None),
        ("POST", f"{ALL}/{new_id()}/turns", question("x")),
    ):
        assert error(chats, method, path, body)[:2] == (404, "conversation_not_found")
    for method, path in (
        ("GET", f"/api/turns/{made}/events"),
        ("POST", f"/api/turns/{new_id()}/stop"),
        ("DELETE", f"/api/messages/{new_id()}"),
        ("DELETE", "/api/messages/x'%20OR%201=1"),
    ):
        assert error(chats, method, path)[:2] == (404, "message_not_found")
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
        ("limit=٣", "limit"),
        ("before=1_1_1", "before"),
        (f"search={'x' * 201}", "search"),
    ):
        assert error(chats, "GET", f"{ALL}?{query}")[::2] == (400, param)


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
        assert error(chats, "PATCH", f"{ALL}/{made}", body)[::2] == (400, param)
    assert chats.get(made) == after


def some_export(chats: Chats) -> Any:
    made = chats.create(system_prompt="你好")
    first = chats.say(made, "echo 一 二 三")
    chats.say(made, "echo more", first.id)
    chats.rest(chats.turn(made, answer_id=new_id(), parent_id=first.parent_id).answer.id)
    chats.say(chats.create(), "refuse")
    return chats.fine("GET", f"{ALL}/export")


def test_an_import_of_an_export_is_the_same_again(chats: Chats) -> None:
    exported = some_export(chats)
    assert (exported["format"], exported["version"], len(exported["conversations"])) == ("berth-conversations", 1, 2)
    twice = chats.fine("POST", f"{ALL}/import", exported)
    assert len(twice["conversations"]) == 2 and len(chats.titles()) == 4
    old = {conversation["head"]["id"] for conversation in exported["conversations"]}
    assert not old & {head["id"] for head in twice["conversations"]}
    for head in chats.fine("GET", ALL)["conversations"]:
        chats.fine("DELETE", f"{ALL}/{head['id']}")
    chats.fine("POST", f"{ALL}/import", exported)
    assert chats.fine("GET", f"{ALL}/export") == exported


def spoilt(exported: Any, *path: Any, value: Any) -> Any:
    body = copy.deepcopy(exported)
    *above, last = path
    place = body
    for key in above:
        place = place[key]
    place[last] = value
    return body


def test_an_import_is_taken_whole_or_not_at_all(chats: Chats) -> None:
    exported = some_export(chats)
    before = chats.titles()
    tree = ("conversations", 0, "messages")
    at = max(range(2), key=lambda n: len(exported["conversations"][n]["messages"]))
    tree = ("conversations", at, "messages")
    messages = exported["conversations"][at]["messages"]
    cases = [
        (spoilt(exported, "format", value="other"), "format"),
        (spoilt(exported, "version", value=2), "version"),
        (spoilt(exported, "conversations", value={}), "conversations"),
        (spoilt(exported, *tree[:2], "leaf_id", value=new_id()), f"conversations[{at}].leaf_id"),
        (spoilt(exported, *tree[:2], "settings", "top_p", value=7), f"conversations[{at}].settings.top_p"),
        (spoilt(exported, *tree[:2], "head", "title", value="two\nlines"), f"conversations[{at}].head.title"),
        (spoilt(exported, *tree[:2], "head", "created_at", value=-1), f"conversations[{at}].head.created_at"),
    ]
    for field, value in (
        ("parent_id", messages[-1]["id"]),
        ("id", "../../etc/passwd"),
        ("id", messages[1]["id"]),
        ("role", "system"),
        ("role", "assistant"),
        ("state", "sleeping"),
        ("content", "\ud83d"),
        ("content", None),
        ("seq", 2**63),
        ("prompt_tokens", -1),
        ("tool_calls", [{"id": "x", "name": 1, "arguments": ""}]),
    ):
        where = 2 if field == "id" and value == messages[1]["id"] else 0
        param = f"conversations[{at}].messages[{where}].{field}"
        cases.append((spoilt(exported, *tree, where, field, value=value), param))
    for body, param in cases:
        status, _, named = error(chats, "POST", f"{ALL}/import", body)
        assert status == 400 and named is not None and named.startswith(param), (param, named)
    assert chats.titles() == before


def test_an_import_that_is_too_large_is_a_413(chats: Chats, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = some_export(chats)
    larger = spoilt(exported, "padding", value="x" * 5_000_000)
    assert len(chats.fine("POST", f"{ALL}/import", larger)["conversations"]) == 2
    monkeypatch.setattr("app.web.blueprints.conversations.MAX_BYTES", 1000)
    assert error(chats, "POST", f"{ALL}/import", exported)[0] == 413
    monkeypatch.setattr(conversation_import, "MAX_MESSAGES", 2)
    monkeypatch.setattr("app.web.blueprints.conversations.MAX_BYTES", 1_000_000)
    assert error(chats, "POST", f"{ALL}/import", exported)[0] == 400


def test_markdown_for_people_in_both_languages(chats: Chats, client: FlaskClient) -> None:
    made = chats.create()
    first = chats.say(made, "echo **one**")
    chats.say(made, "refuse", first.id)
    with client.get(f"{ALL}/{made}/export?format=markdown&lang=en") as english:
        assert english.mimetype == "text/markdown"
        assert english.headers["Content-Disposition"] == 'attachment; filename="echo __one__.md"'
        lines = english.get_data(as_text=True).split("\n\n")
    assert lines[0] == "# echo **one**"
    assert lines[2:] == [
        "## You", "echo **one**", "## Answer", "**one**", "## You", "refuse", "## Answer",
        "*Failed: At most 100 tokens fit.*\n",
    ]  # fmt: skip
    with client.get(f"{ALL}/{made}/export?format=markdown", headers={"Accept-Language": "zh-CN"}) as chinese:
        assert "## 回答" in chinese.get_data(as_text=True)
    assert error(chats, "GET", f"{ALL}/{made}/export?format=pdf")[::2] == (400, "format")


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
