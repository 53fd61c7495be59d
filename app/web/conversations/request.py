"""The bodies of the conversations' API, checked field by field; each error names the field."""

from __future__ import annotations

import uuid
from typing import Any

from app.contract.codec import ContractError, from_json
from app.contract.conversations import ChatSettings, ConversationChange, NewConversation, NewTurn
from app.contract.limits import (
    MAX_CONTENT_CHARACTERS,
    MAX_SEQ,
    MAX_TITLE_CHARACTERS,
    MAX_TOKENS_RANGE,
    SAMPLING_RANGES,
)
from app.web.http import fields
from app.web.http.errors import bad_field

_SETTINGS = tuple(ChatSettings.__dataclass_fields__)
RANGES = {**SAMPLING_RANGES, "max_tokens": MAX_TOKENS_RANGE}


def read_new_conversation(body: dict[str, Any]) -> NewConversation:
    """POST /api/conversations."""
    fields.check_names("", body, NewConversation.__dataclass_fields__)
    settings = body.get("settings")
    return NewConversation(
        read_id("id", body.get("id")), ChatSettings() if settings is None else read_settings("settings", settings)
    )


def read_change(body: dict[str, Any]) -> ConversationChange:
    """PATCH /api/conversations/<id>."""
    fields.check_names("", body, ConversationChange.__dataclass_fields__)
    title, pinned, settings, leaf_id = (body.get(name) for name in ("title", "pinned", "settings", "leaf_id"))
    return ConversationChange(
        None if title is None else read_title("title", title),
        None if pinned is None else fields.boolean("pinned", pinned),
        None if settings is None else read_settings("settings", settings),
        None if leaf_id is None else read_id("leaf_id", leaf_id),
    )


def read_new_turn(body: dict[str, Any]) -> NewTurn:
    """POST /api/conversations/<id>/turns: a question, another answer, or more of one."""
    fields.check_names("", body, NewTurn.__dataclass_fields__)
    ids = {name: body.get(name) for name in ("parent_id", "question_id", "continues")}
    given = {name: read_id(name, value) for name, value in ids.items() if value is not None}
    content = None if body.get("content") is None else read_content("content", body["content"])
    seq = fields.integer("seq", body.get("seq"), 0, MAX_SEQ)
    new = NewTurn(read_id("answer_id", body.get("answer_id")), content=content, seq=seq, **given)
    if new.continues is not None:
        _check_continuing(new)
    elif (new.content is None) != (new.question_id is None):
        raise bad_field("question_id", "belongs to content: send both or neither")
    elif new.question_id is None and new.parent_id is None:
        raise bad_field("content", "is missing; or parent_id, the question that is to be answered")
    elif new.content is not None and not new.content.strip():
        raise bad_field("content", "is empty")
    elif new.answer_id in given.values() or (new.question_id and new.question_id == new.parent_id):
        raise bad_field("answer_id", "question_id and parent_id have to differ")
    return new


def read_settings(path: str, value: Any) -> ChatSettings:
    """Settings with every number within the bounds that /v1 has for it."""
    if not isinstance(value, dict):
        raise fields.wrong_type(path, "an object", value)
    fields.check_names(f"{path}.", value, _SETTINGS)
    read: dict[str, Any] = {}
    for name in _SETTINGS:
        given, bounds = value.get(name), RANGES.get(name)
        if given is None:
            continue
        at = f"{path}.{name}"
        if bounds is None:
            read[name] = read_content(at, given) if name == "system_prompt" else fields.boolean(at, given)
        elif bounds.whole:
            read[name] = fields.integer(at, given, int(bounds.low), int(bounds.high))
        else:
            read[name] = fields.number(at, given, bounds.low, bounds.high, open_low=bounds.open_low)
    try:
        return from_json(ChatSettings, read, path)
    except ContractError as error:
        raise bad_field(path, str(error)) from None


def read_id(path: str, value: Any) -> str:
    """A UUID in the one form that is stored."""
    given = fields.text(path, value)
    try:
        fine = str(uuid.UUID(given)) == given
    except ValueError:
        fine = False
    if not fine:
        raise bad_field(path, "should be a UUID in lower case, such as 0b0e1c9e-7c1f-4f0e-9d0c-2a3b4c5d6e7f")
    return given


def read_title(path: str, value: Any) -> str:
    """A title on one line."""
    title = " ".join(fields.text(path, value).replace("\0", " ").split())
    if not 1 <= len(title) <= MAX_TITLE_CHARACTERS:
        raise bad_field(path, f"should be 1 to {MAX_TITLE_CHARACTERS} characters long, is {len(title)}")
    return title


def read_content(path: str, value: Any) -> str:
    """The text of a message."""
    content = fields.text(path, value)
    if len(content) > MAX_CONTENT_CHARACTERS:
        raise bad_field(path, f"is {len(content)} characters long; at most {MAX_CONTENT_CHARACTERS} are accepted")
    if "\0" in content:
        raise bad_field(path, f"holds a NUL at character {content.index(chr(0))}")
    return content


def _check_continuing(new: NewTurn) -> None:
    if new.continues != new.answer_id:
        raise bad_field("continues", "should be the same as answer_id")
    for name in ("parent_id", "question_id", "content"):
        if getattr(new, name) is not None:
            raise bad_field(name, "is not for an answer that goes on; leave it out")
