"""Conversations under /api, as `app.contract.conversations` has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request
from werkzeug.datastructures import Headers

from app.contract.codec import to_json
from app.contract.conversations import Conversation, ConversationPage, Export
from app.contract.limits import MAX_SEARCH_CHARACTERS, MOST_LISTED
from app.web.conversations.import_file import MAX_BYTES, read_import
from app.web.conversations.markdown import Language, markdown
from app.web.conversations.request import read_change, read_new_conversation
from app.web.http import fields
from app.web.http.errors import ApiError, bad_field
from app.web.http.json_body import read_object
from app.web.services import Services, services

bp = Blueprint("conversations", __name__, url_prefix="/api/conversations")


@bp.get("")
def page() -> Response:
    """A part of the list."""
    search = fields.text("search", request.args.get("search", "")).replace("\0", "").strip()
    if len(search) > MAX_SEARCH_CHARACTERS:
        raise bad_field("search", f"is longer than {MAX_SEARCH_CHARACTERS} characters")
    store = services().storage.open()
    return _fresh(store.conversations.page(search, request.args.get("before"), _limit()))


@bp.post("")
def create() -> Response:
    """A new, empty conversation; asked again, the same."""
    new = read_new_conversation(read_object(request))
    shared = services()
    return _fresh(shared.turns.all_now(shared.storage.open().conversations.create(new)), 201)


@bp.get("/<conversation_id>")
def show(conversation_id: str) -> Response:
    """All of one."""
    return _fresh(_now(services(), conversation_id))


@bp.patch("/<conversation_id>")
def change(conversation_id: str) -> Response:
    """Another title, pin, settings or branch."""
    wanted = read_change(read_object(request))
    return _fresh(services().storage.open().conversations.change(conversation_id, wanted))


@bp.delete("/<conversation_id>")
def delete(conversation_id: str) -> Response:
    """Stops what is written there, and deletes it all."""
    services().turns.delete_conversation(conversation_id)
    return Response(status=204)


@bp.get("/<conversation_id>/export")
def export(conversation_id: str) -> Response:
    """One conversation to keep, for programs or for people."""
    conversation = _now(services(), conversation_id)
    kind = request.args.get("format", "json")
    name = conversation.head.title or "conversation"
    if kind == "json":
        return _file(json.dumps(to_json(Export((conversation,))), ensure_ascii=False), f"{name}.json")
    if kind == "markdown":
        return _file(markdown(conversation, _language()), f"{name}.md")
    raise bad_field("format", "should be json or markdown")


@bp.get("/export")
def export_all() -> Response:
    """All conversations, one after the other: together they may be larger than memory."""
    shared = services()
    ids = shared.storage.open().conversations.ids()
    return _file(_written(shared, ids), "berth-conversations.json")


@bp.post("/import")
def take_in() -> Response:
    """Adds all conversations of an export, or none."""
    request.max_content_length = MAX_BYTES
    given = read_import(read_object(request))
    return _fresh(ConversationPage(services().storage.open().transfer.add(given), None), 201)


def _now(shared: Services, conversation_id: str) -> Conversation:
    return shared.turns.all_now(shared.storage.open().conversations.get(conversation_id))


def _written(shared: Services, ids: tuple[str, ...]) -> Iterator[str]:
    """An `Export`, conversation by conversation; one that is deleted meanwhile is left out."""
    empty = to_json(Export(()))
    rest = json.dumps({name: value for name, value in empty.items() if name != "conversations"})
    yield '{"conversations": ['
    comma = ""
    for conversation_id in ids:
        try:
            conversation = _now(shared, conversation_id)
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        yield comma + json.dumps(to_json(conversation), ensure_ascii=False)
        comma = ","
    yield "], " + rest.removeprefix("{")


def _limit() -> int:
    given = request.args.get("limit", "50")
    if not re.fullmatch("[0-9]{1,9}", given) or not 1 <= int(given) <= MOST_LISTED:
        raise bad_field("limit", f"should be from 1 to {MOST_LISTED}")
    return int(given)


def _language() -> Language:
    asked = request.args.get("lang") or request.accept_languages.best_match(["en", "zh"])
    return "zh" if asked == "zh" else "en"


def _fresh(value: object, status: int = 200) -> Response:
    response = jsonify(to_json(value))
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def _file(body: Any, name: str) -> Response:
    """A download. Never shown as a page: what people and models wrote is in it."""
    headers = Headers()
    safe = "".join("_" if character in '/\\:*?"<>|' or not character.isprintable() else character for character in name)
    safe = safe.lstrip(".") or "conversation"
    # A header is ASCII: other titles are written as RFC 8187 has it, with a plain one for who can't read that.
    plain = safe if safe.isascii() else f"conversation.{safe.rpartition('.')[2]}"
    names = {"filename": plain} if plain == safe else {"filename": plain, "filename*": f"UTF-8''{quote(safe, safe='')}"}
    headers.set("Content-Disposition", "attachment", **names)
    headers["Cache-Control"] = "no-store"
    kind = "application/json" if name.endswith(".json") else "text/markdown; charset=utf-8"
    return Response(body, content_type=kind, headers=headers)
