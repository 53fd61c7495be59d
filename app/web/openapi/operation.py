"""One endpoint's description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.contract.json_schema import Schema

JSON = "application/json"
EVENTS = "text/event-stream"


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
