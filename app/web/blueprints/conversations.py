"""Conversations under /api; `app.contract.conversations` describes them."""

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
from app.web.http.errors import bad_field
from app.web.http.json_body import read_object
from app.web.services import Services, services
from app.web.store.errors import NotFoundError

bp = Blueprint("conversations", __name__, url_prefix="/api/conversations")


@bp.get("")
def page() -> Response:
    """A page of the list."""
    search = fields.text("search", request.args.get("search", "")).replace("\0", "").strip()
    if len(search) > MAX_SEARCH_CHARACTERS:
        raise bad_field("search", f"is longer than {MAX_SEARCH_CHARACTERS} characters")
    return _json(services().store.conversations.page(search, request.args.get("before"), _limit()))


@bp.post("")
def create() -> Response:
    """Makes a new, empty conversation. The same request again returns the same one."""
    new = read_new_conversation(read_object(request))
    shared = services()
    return _json(shared.turns.all_current(shared.store.conversations.create(new)), 201)


@bp.get("/<conversation_id>")
def show(conversation_id: str) -> Response:
    """One conversation with its messages."""
    return _json(_current(services(), conversation_id))


@bp.patch("/<conversation_id>")
def change(conversation_id: str) -> Response:
    """Changes title, pin, settings or branch."""
    new = read_change(read_object(request))
    return _json(services().store.conversations.change(conversation_id, new))


@bp.delete("/<conversation_id>")
def delete(conversation_id: str) -> Response:
    """Stops the conversation's turns and deletes it."""
    services().turns.delete_conversation(conversation_id)
    return Response(status=204)


@bp.get("/<conversation_id>/export")
def export(conversation_id: str) -> Response:
    """One conversation as a file: JSON or Markdown."""
    conversation = _current(services(), conversation_id)
    file_format = request.args.get("format", "json")
    name = conversation.head.title or "conversation"
    if file_format == "json":
        return _file(json.dumps(to_json(Export((conversation,))), ensure_ascii=False), f"{name}.json")
    if file_format == "markdown":
        return _file(markdown(conversation, _language()), f"{name}.md")
    raise bad_field("format", "should be json or markdown")


@bp.get("/export")
def export_all() -> Response:
    """All conversations, streamed: together they may be larger than memory."""
    shared = services()
    ids = shared.store.conversations.ids()
    return _file(_export_parts(shared, ids), "berth-conversations.json")


@bp.post("/import")
def import_file() -> Response:
    """Adds all conversations of an export, or none."""
    request.max_content_length = MAX_BYTES
    imported = read_import(read_object(request))
    return _json(ConversationPage(services().store.importer.add(imported), None), 201)


def _current(shared: Services, conversation_id: str) -> Conversation:
    return shared.turns.all_current(shared.store.conversations.get(conversation_id))


def _export_parts(shared: Services, ids: tuple[str, ...]) -> Iterator[str]:
    """The JSON of an `Export`, one conversation at a time. One that is deleted meanwhile is left out."""
    empty = to_json(Export(()))
    rest = json.dumps({name: value for name, value in empty.items() if name != "conversations"})
    yield '{"conversations": ['
    comma = ""
    for conversation_id in ids:
        try:
            conversation = _current(shared, conversation_id)
        except NotFoundError:
            continue
        yield comma + json.dumps(to_json(conversation), ensure_ascii=False)
        comma = ","
    yield "], " + rest.removeprefix("{")


def _limit() -> int:
    text = request.args.get("limit", "50")
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MOST_LISTED:
        raise bad_field("limit", f"should be from 1 to {MOST_LISTED}")
    return int(text)


def _language() -> Language:
    language = request.args.get("lang") or request.accept_languages.best_match(["en", "zh"])
    return "zh" if language == "zh" else "en"


def _json(value: object, status: int = 200) -> Response:
    response = jsonify(to_json(value))
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def _file(body: Any, name: str) -> Response:
    """A download. A browser must not show it as a page, because people and models wrote its content."""
    headers = Headers()
    safe = "".join("_" if character in '/\\:*?"<>|' or not character.isprintable() else character for character in name)
    safe = safe.lstrip(".") or "conversation"
    # Headers are ASCII. Other titles are encoded as in RFC 8187, beside a plain name for older clients.
    plain = safe if safe.isascii() else f"conversation.{safe.rpartition('.')[2]}"
    names = {"filename": plain} if plain == safe else {"filename": plain, "filename*": f"UTF-8''{quote(safe, safe='')}"}
    headers.set("Content-Disposition", "attachment", **names)
    headers["Cache-Control"] = "no-store"
    content_type = "application/json" if name.endswith(".json") else "text/markdown; charset=utf-8"
    return Response(body, content_type=content_type, headers=headers)
