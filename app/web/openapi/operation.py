"""The description of one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.contract.json_schema import Schema

JSON = "application/json"
EVENTS = "text/event-stream"
ERRORS = {
    400: "The request is invalid; `param` names the field.",
    401: "The key is missing or wrong.",
    403: "Forbidden: another origin, another host, or no CSRF token.",
    404: "Not found.",
    408: "The request took too long.",
    409: "The request conflicts with what is stored.",
    411: "Content-Length is missing.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests; Retry-After says when to try again.",
    500: "The service or the engine failed; see the log.",
    503: "Unavailable; the message says why, Retry-After when to try again.",
    507: "The disk is full; nothing was stored.",
}
"""By status; all have the error shape."""


@dataclass(frozen=True)
class Response:
    """One status's response: by content type, a component's name or a schema; empty for 204."""

    text: str
    content: Mapping[str, str | Schema]


@dataclass(frozen=True)
class Operation:
    """One endpoint. `errors` are statuses with the error shape, in addition to those of its access rule."""

    summary: str
    responses: Mapping[int, Response]
    errors: tuple[int, ...] = ()
    body: str | None = None
    """A component's name."""
    query: tuple[tuple[str, Schema, str], ...] = ()
    """Name, schema, meaning."""
    description: str = ""


def answers(component: str, text: str, status: int = 200) -> dict[int, Response]:
    """A successful response with JSON."""
    return {status: Response(text, {JSON: component})}
