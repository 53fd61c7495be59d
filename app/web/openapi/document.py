"""Makes the OpenAPI document from the app's routes."""

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
from app.web.openapi.operation import ERRORS, JSON, Operation, Response
from app.web.openapi.operations import OPERATIONS

_UUID: Schema = {"type": "string", "format": "uuid"}
_NAME: Schema = {"type": "string", "minLength": 1}
_PREFIX = "#/components/schemas/"
_OUTPUTS: tuple[type, ...] = (
    *(status.Status, plan.Plan, access.Session),
    *(conversations.ConversationPage, conversations.Conversation, conversations.Turn, conversations.TurnEvent),
    conversations.Export,
)
_STRICT: tuple[type, ...] = (
    *(access.SignIn, conversations.NewConversation, conversations.ConversationChange, conversations.NewTurn),
    conversations.ChatSettings,
)
_INPUTS = (*_STRICT, conversations.Export)
_DESCRIPTION = (
    "OpenAI's chat completions for one GLM model, and this service's own endpoints. Every error outside of a stream "
    "has the shape `Error`; for a 401, send `Authorization: Bearer <key>`."
)
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "public": [],
    "member": [{"key": []}, {"session": []}],
    "session": [{"session": []}],
}
_SCHEMES: dict[str, Schema] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "The log's first lines say where the key is.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "description": "The page's cookie; requests that change something also need X-CSRFToken.",
    },
}


def describe(app: Flask, version: str, open_access: bool) -> dict[str, Any]:
    """The document. With `open_access` no endpoint needs a key."""
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
    for kind in _OUTPUTS:
        definitions.output(kind)
    for kind in _INPUTS:
        definitions.input(kind)
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
    operation = OPERATIONS[endpoint]
    name = re.sub(r"\W+", "_", rule.rule).strip("_") or "page"
    described: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": operation.summary,
        "tags": [endpoint.partition(".")[0]],
        "parameters": [*_in_path(rule), *_in_query(operation)],
        "responses": _responses(endpoint, operation, open_access),
        "security": [] if open_access else _SECURITY[RULES[endpoint]],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(operation.body)}}}
    return described


def _in_path(rule: Rule) -> list[dict[str, Any]]:
    uuids = set(re.findall(r"<uuid:(\w+)>", rule.rule))
    return [
        {"name": name, "in": "path", "required": True, "schema": _UUID if name in uuids else _NAME}
        for name in sorted(rule.arguments)
    ]


def _in_query(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "schema": schema, "description": text} for name, schema, text in operation.query
    ]


def _responses(endpoint: str, operation: Operation, open_access: bool) -> dict[str, Any]:
    errors = set(operation.errors)
    if RULES[endpoint] != "public":
        errors |= {403} if open_access else {401, 403, 429}
    responses = {**{code: Response(ERRORS[code], {JSON: "Error"}) for code in errors}, **operation.responses}
    return {str(code): _response(response) for code, response in sorted(responses.items())}


def _response(response: Response) -> dict[str, Any]:
    content = {
        kind: {"schema": _ref(item) if isinstance(item, str) else item} for kind, item in response.content.items()
    }
    return {"description": response.text, **({"content": content} if content else {})}


def _ref(component: str) -> Schema:
    return {"$ref": _PREFIX + component}
