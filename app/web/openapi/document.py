"""The OpenAPI document, put together from the routes that there are."""

from __future__ import annotations

import functools
import re
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from app.contract import access, conversations, plan, status
from app.contract.json_schema import Definitions, Schema
from app.web.access.rules import RULES
from app.web.openapi import requests
from app.web.openapi.answers import SCHEMAS
from app.web.openapi.conversations import limit
from app.web.openapi.operation import ERRORS, JSON, Operation, Reply
from app.web.openapi.operations import OPERATIONS

_UUID: Schema = {"type": "string", "format": "uuid"}
_NAME: Schema = {"type": "string", "minLength": 1}
_PREFIX = "#/components/schemas/"
_SENT: tuple[type, ...] = (
    *(status.Status, plan.Plan, access.Session),
    *(conversations.ConversationPage, conversations.Conversation, conversations.Turn, conversations.TurnEvent),
    conversations.Export,
)
_STRICT: tuple[type, ...] = (
    *(access.SignIn, conversations.NewConversation, conversations.ConversationChange, conversations.NewTurn),
    conversations.ChatSettings,
)
_TAKEN = (*_STRICT, conversations.Export)
_DESCRIPTION = (
    "OpenAI's chat completions for one GLM model, with what this service tells of itself. Every error outside of a "
    "stream has the shape `Error`; 401 wants `Authorization: Bearer <key>`."
)
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "public": [],
    "member": [{"key": []}, {"session": []}],
    "session": [{"session": []}],
}
_SCHEMES: dict[str, Schema] = {
    "key": {"type": "http", "scheme": "bearer", "description": "The key that the log's first lines name."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "description": "The page's cookie; what changes something also sends X-CSRFToken.",
    },
}


def describe(app: Flask, version: str, open_access: bool) -> dict[str, Any]:
    """The document; with `open_access` nothing asks for a key."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in OPERATIONS:
            continue
        item = paths.setdefault(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            item[method.lower()] = _operation(rule, method, open_access)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Berth", "version": version, "description": _DESCRIPTION},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": _schemas(), "securitySchemes": {} if open_access else _schemes(app)},
    }


def _schemes(app: Flask) -> dict[str, Schema]:
    return {**_SCHEMES, "session": {**_SCHEMES["session"], "name": app.config["SESSION_COOKIE_NAME"]}}


@functools.cache
def _schemas() -> dict[str, Schema]:
    definitions = Definitions(_PREFIX, _STRICT)
    for kind in _SENT:
        definitions.sent(kind)
    for kind in _TAKEN:
        definitions.taken(kind)
    limit(definitions.schemas)
    bodies = {
        "ChatBody": requests.chat_body(),
        "Messages": requests.messages(),
        "TokenizeBody": requests.tokenize_body(),
        "DetokenizeBody": requests.detokenize_body(),
    }
    return {**definitions.schemas, **bodies, **SCHEMAS}


def _operation(rule: Rule, method: str, open_access: bool) -> dict[str, Any]:
    endpoint = str(rule.endpoint)
    known = OPERATIONS[endpoint]
    name = re.sub(r"\W+", "_", rule.rule).strip("_") or "page"
    described: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": known.summary,
        "tags": [endpoint.partition(".")[0]],
        "parameters": [*_in_path(rule), *_in_query(known)],
        "responses": _responses(endpoint, known, open_access),
        "security": [] if open_access else _SECURITY[RULES[endpoint]],
    }
    if known.description:
        described["description"] = known.description
    if known.body:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(known.body)}}}
    return described


def _in_path(rule: Rule) -> list[dict[str, Any]]:
    uuids = set(re.findall(r"<uuid:(\w+)>", rule.rule))
    return [
        {"name": name, "in": "path", "required": True, "schema": _UUID if name in uuids else _NAME}
        for name in sorted(rule.arguments)
    ]


def _in_query(known: Operation) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": schema, "description": text} for name, schema, text in known.query]


def _responses(endpoint: str, known: Operation, open_access: bool) -> dict[str, Any]:
    errors = set(known.errors)
    if RULES[endpoint] != "public":
        errors |= {403} if open_access else {401, 403, 429}
    replies = {**{code: Reply(ERRORS[code], {JSON: "Error"}) for code in errors}, **known.replies}
    return {str(code): _response(reply) for code, reply in sorted(replies.items())}


def _response(reply: Reply) -> dict[str, Any]:
    content = {kind: {"schema": _ref(item) if isinstance(item, str) else item} for kind, item in reply.content.items()}
    return {"description": reply.text, **({"content": content} if content else {})}


def _ref(component: str) -> Schema:
    return {"$ref": _PREFIX + component}
