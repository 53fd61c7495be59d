"""Operations of conversations and turns, and the limits of their bodies."""

from __future__ import annotations

from app.contract.json_schema import Schema
from app.contract.limits import MAX_CONTENT_CHARACTERS, MAX_SEARCH_CHARACTERS, MAX_SEQ, MOST_LISTED
from app.web.conversations.request import RANGES
from app.web.openapi.operation import EVENTS, JSON, Operation, Response, answers
from app.web.openapi.requests import number

_STORE_ERRORS = (503, 507)
_BODY_ERRORS = (400, 413, 415, 500, *_STORE_ERRORS)
_DELETED: dict[int, Response] = {204: Response("Deleted.", {})}
_ANY_EXPORT = {200: Response("A file.", {JSON: "Export", "text/markdown": {"type": "string"}})}
_WHOLE_EXPORT = {200: Response("A file.", {JSON: "Export"})}
_EVENTS: Schema = {"type": "string", "description": "Each event is a TurnEvent; its id is the event's number."}

CONVERSATIONS: dict[str, Operation] = {
    "conversations.page": Operation(
        "A page of the list, pinned conversations first",
        answers("ConversationPage", "The page."),
        (400, 503),
        query=(
            (
                "search",
                {"type": "string", "maxLength": MAX_SEARCH_CHARACTERS},
                "Only conversations that contain this text.",
            ),
            ("before", {"type": "string"}, "The cursor of the page before."),
            ("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}, "Most conversations in the page."),
        ),
    ),
    "conversations.create": Operation(
        "Create an empty conversation",
        answers("Conversation", "Created, now or before by the same request.", 201),
        (409, *_BODY_ERRORS),
        "NewConversationInput",
    ),
    "conversations.show": Operation(
        "One conversation", answers("Conversation", "The conversation with its messages."), (404, 503)
    ),
    "conversations.change": Operation(
        "Change title, pin, settings or branch",
        answers("Conversation", "Without its messages."),
        (404, *_BODY_ERRORS),
        "ConversationChangeInput",
    ),
    "conversations.delete": Operation("Delete a conversation", _DELETED, (404, *_STORE_ERRORS)),
    "conversations.export": Operation(
        "Export one conversation",
        _ANY_EXPORT,
        (400, 404, 503),
        query=(
            ("format", {"enum": ["json", "markdown"]}, "JSON can be imported again."),
            ("lang", {"type": "string"}, "Language of the headings in Markdown: en or zh."),
        ),
    ),
    "conversations.export_all": Operation("Export all conversations", _WHOLE_EXPORT, (503,)),
    "conversations.import_file": Operation(
        "Import an export: all of it, or nothing",
        answers("ConversationPage", "The added conversations.", 201),
        (409, *_BODY_ERRORS),
        "ExportInput",
    ),
    "turns.start": Operation(
        "Start an answer",
        answers("Turn", "The question is stored and the answer started, now or before.", 201),
        (404, 409, 429, *_BODY_ERRORS),
        "NewTurnInput",
    ),
    "turns.follow": Operation(
        "Stream an answer",
        {200: Response("Server-sent events; the last one has the whole message.", {EVENTS: _EVENTS})},
        (400, 404, 429, 503),
        query=(("after", {"type": "integer", "minimum": 0, "maximum": MAX_SEQ}, "The last known event."),),
    ),
    "turns.stop": Operation(
        "Stop an answer", answers("StoredMessage", "The stopped answer."), (404, 409, *_STORE_ERRORS)
    ),
    "turns.delete": Operation("Delete a message and all messages below it", _DELETED, (404, *_STORE_ERRORS)),
}

_UUID: Schema = {"format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
_CONTENT: Schema = {"maxLength": MAX_CONTENT_CHARACTERS}
_LIMITS: dict[str, dict[str, Schema]] = {
    "NewConversationInput": {"id": _UUID},
    "ConversationChangeInput": {"leaf_id": _UUID, "title": {"pattern": r"\S"}},
    "NewTurnInput": {
        **dict.fromkeys(("answer_id", "parent_id", "question_id", "continues"), _UUID),
        "content": _CONTENT,
        "seq": {"minimum": 0, "maximum": MAX_SEQ},
    },
    "ChatSettingsInput": {"system_prompt": _CONTENT, **{name: number(bounds) for name, bounds in RANGES.items()}},
}
"""Limits of fields beyond their types, by component."""


def limit(schemas: dict[str, Schema]) -> None:
    """Adds the limits to the components made from the dataclasses."""
    for component, fields in _LIMITS.items():
        properties = schemas[component]["properties"]
        for name in fields.keys() & properties.keys():
            properties[name] |= fields[name]
