"""Conversations and turns as the description has them: their operations, and what their bodies may hold."""

from __future__ import annotations

from app.contract.json_schema import Schema
from app.contract.limits import MAX_CONTENT_CHARACTERS, MAX_SEARCH_CHARACTERS, MAX_SEQ, MOST_LISTED
from app.web.conversations.request import RANGES
from app.web.openapi.operation import EVENTS, JSON, Operation, Reply, answers
from app.web.openapi.requests import number

_STORE_ERRORS = (503, 507)
_BODY_ERRORS = (400, 413, 415, 500, *_STORE_ERRORS)
_GONE: dict[int, Reply] = {204: Reply("It is deleted.", {})}
_ANY_EXPORT = {200: Reply("A file.", {JSON: "Export", "text/markdown": {"type": "string"}})}
_WHOLE_EXPORT = {200: Reply("A file.", {JSON: "Export"})}
_EVENTS: Schema = {"type": "string", "description": "Each event is a TurnEvent, its number the event's id."}

CONVERSATIONS: dict[str, Operation] = {
    "conversations.page": Operation(
        "A part of the list, pinned ones first",
        answers("ConversationPage", "The part."),
        (400, 503),
        query=(
            ("search", {"type": "string", "maxLength": MAX_SEARCH_CHARACTERS}, "Only those that hold these words."),
            ("before", {"type": "string"}, "What the part before said."),
            ("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}, "How many."),
        ),
    ),
    "conversations.create": Operation(
        "A new, empty conversation",
        answers("Conversation", "Made; or made before by the same request.", 201),
        (409, *_BODY_ERRORS),
        "NewConversationInput",
    ),
    "conversations.show": Operation("One conversation", answers("Conversation", "All of it."), (404, 503)),
    "conversations.change": Operation(
        "Another title, pin, settings or branch",
        answers("Conversation", "Without its messages."),
        (404, *_BODY_ERRORS),
        "ConversationChangeInput",
    ),
    "conversations.delete": Operation("Delete a conversation", _GONE, (404, *_STORE_ERRORS)),
    "conversations.export": Operation(
        "One conversation to keep",
        _ANY_EXPORT,
        (400, 404, 503),
        query=(
            ("format", {"enum": ["json", "markdown"]}, "For programs, or for people."),
            ("lang", {"type": "string"}, "Of the headings in Markdown: en or zh."),
        ),
    ),
    "conversations.export_all": Operation("All conversations to keep", _WHOLE_EXPORT, (503,)),
    "conversations.take_in": Operation(
        "Take in an export: all of it, or nothing",
        answers("ConversationPage", "What was added.", 201),
        (409, *_BODY_ERRORS),
        "ExportInput",
    ),
    "turns.start": Operation(
        "Ask for an answer",
        answers("Turn", "The question is stored, the answer begun; or was before.", 201),
        (404, 409, 429, *_BODY_ERRORS),
        "NewTurnInput",
    ),
    "turns.follow": Operation(
        "An answer as it grows",
        {200: Reply("Server-sent events up to the message at rest.", {EVENTS: _EVENTS})},
        (400, 404, 429, 503),
        query=(("after", {"type": "integer", "minimum": 0, "maximum": MAX_SEQ}, "The last event that is known."),),
    ),
    "turns.stop": Operation(
        "End an answer where it is", answers("StoredMessage", "At rest."), (404, 409, *_STORE_ERRORS)
    ),
    "turns.delete": Operation("Delete a message and all that answers it", _GONE, (404, *_STORE_ERRORS)),
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
"""What the service asks of a field beyond its type, by component."""


def limit(schemas: dict[str, Schema]) -> None:
    """Adds the limits to the components made from the dataclasses."""
    for component, fields in _LIMITS.items():
        properties = schemas[component]["properties"]
        for name in fields.keys() & properties.keys():
            properties[name] |= fields[name]
