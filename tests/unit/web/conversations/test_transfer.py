"""Exports, imports and Markdown: what leaves comes back the same, and what would break a tree stays out."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from app.web.conversations import import_file
from tests.conversations import Chats, new_id
from tests.unit.web.support import Web

ALL = "/api/conversations"


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
        status, _, named = chats.refused("POST", f"{ALL}/import", body)
        assert status == 400 and named is not None and named.startswith(param), (param, named)
    assert chats.titles() == before


def test_an_import_that_is_too_large_is_a_413(chats: Chats, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = some_export(chats)
    larger = spoilt(exported, "padding", value="x" * 5_000_000)
    assert len(chats.fine("POST", f"{ALL}/import", larger)["conversations"]) == 2
    monkeypatch.setattr("app.web.blueprints.conversations.MAX_BYTES", 1000)
    assert chats.refused("POST", f"{ALL}/import", exported)[0] == 413
    monkeypatch.setattr(import_file, "MOST_STORED_MESSAGES", 2)
    monkeypatch.setattr("app.web.blueprints.conversations.MAX_BYTES", 1_000_000)
    assert chats.refused("POST", f"{ALL}/import", exported)[0] == 400


def test_markdown_for_people_in_both_languages(chats: Chats, web: Web) -> None:
    made = chats.create()
    first = chats.say(made, "echo **one**")
    chats.say(made, "refuse", first.id)
    with web.client.get(f"{ALL}/{made}/export?format=markdown&lang=en") as english:
        assert english.mimetype == "text/markdown"
        assert english.headers["Content-Disposition"] == 'attachment; filename="echo __one__.md"'
        lines = english.get_data(as_text=True).split("\n\n")
    assert lines[0] == "# echo **one**"
    assert lines[2:] == [
        "## You", "echo **one**", "## Answer", "**one**", "## You", "refuse", "## Answer",
        "*Failed: At most 100 tokens fit.*\n",
    ]  # fmt: skip
    with web.client.get(f"{ALL}/{made}/export?format=markdown", headers={"Accept-Language": "zh-CN"}) as chinese:
        assert "## 回答" in chinese.get_data(as_text=True)
    assert chats.refused("GET", f"{ALL}/{made}/export?format=pdf")[::2] == (400, "format")
