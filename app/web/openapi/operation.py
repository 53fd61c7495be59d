"""One endpoint's description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.contract.json_schema import Schema

JSON = "application/json"
EVENTS = "text/event-stream"
ERRORS = {
    400: "The request is wrong; `param` names the field.",
    401: "The key is missing or wrong.",
    403: "Not from here: another origin, another host, or no CSRF token.",
    404: "There is nothing of this name.",
    408: "It took too long.",
    409: "It contradicts what is stored.",
    411: "The body's length is not told.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many at once; Retry-After says when to ask again.",
    500: "The service or the engine failed at this request; the log says how.",
    503: "Not now; the message says why, Retry-After when to ask again.",
    507: "The disk is full; nothing was stored.",
}
"""What each status means; all come with the one error shape."""


@dataclass(frozen=True)
class Reply:
    """One status and what comes with it: a component's name or a schema by content type; nothing for 204."""

    text: str
    content: Mapping[str, str | Schema]


@dataclass(frozen=True)
class Operation:
    """One endpoint. `errors` are statuses with the error shape, beside those that any endpoint of its kind has."""

    summary: str
    replies: Mapping[int, Reply]
    errors: tuple[int, ...] = ()
    body: str | None = None
    """A component's name."""
    query: tuple[tuple[str, Schema, str], ...] = ()
    """Name, schema, meaning."""
    description: str = ""


def answers(component: str, text: str, status: int = 200) -> dict[int, Reply]:
    """The one good reply, JSON."""
    return {status: Reply(text, {JSON: component})}
