"""Writes the web client's TypeScript types from the dataclasses of `app.contract`, so that they come from one place.

python -m tools.client_types            write app/client/src/lib/api/contract.ts
python -m tools.client_types --check    exit 1 when that file is not what would be written
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.contract import access, conversations, plan, status, wire
from app.contract.json_schema import field_docs

TARGET = Path(__file__).resolve().parents[1] / "app" / "client" / "src" / "lib" / "api" / "contract.ts"
ROOTS: tuple[type, ...] = (
    status.Status,
    access.Session,
    conversations.ConversationPage,
    conversations.Conversation,
    conversations.NewConversation,
    conversations.ConversationChange,
    conversations.NewTurn,
    conversations.Turn,
    conversations.TurnEvent,
    conversations.Export,
)
"""What the page's API takes and sends; everything they hold follows."""
ALIAS_HOMES = (plan, status, wire, conversations)

HEADER = """\
// Written by tools/client_types.py from app/contract. Do not edit: change the dataclasses and run
// `python -m tools.client_types`.
"""
SCALARS: dict[Any, str] = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def literal_aliases() -> dict[Any, str]:
    """The Literal types that the contract gives a name, by value."""
    return {
        value: name
        for home in ALIAS_HOMES
        for name, value in vars(home).items()
        if typing.get_origin(value) is typing.Literal
    }


ALIASES = literal_aliases()


def literal(kind: Any) -> str:
    return " | ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in typing.get_args(kind))


def type_name(kind: Any) -> str:
    """The TypeScript type of one annotation.

    Raises:
        TypeError: an annotation that the contract has not used so far.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return "unknown"
    if kind in SCALARS:
        return SCALARS[kind]
    if dataclasses.is_dataclass(kind):
        return str(kind.__name__)  # type: ignore[union-attr]
    if origin is typing.Literal:
        return ALIASES.get(kind) or literal(kind)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(item) for item in args)
    if origin is tuple and args[1:] == (...,):
        item = type_name(args[0])
        return f"readonly ({item})[]" if "|" in item else f"readonly {item}[]"
    if origin is dict and args[0] is str:
        return f"Readonly<Record<string, {type_name(args[1])}>>"
    raise TypeError(f"no TypeScript type for {kind!r}")


def parts(kind: Any) -> Iterator[Any]:
    """The annotation itself and every one inside it."""
    yield kind
    if typing.get_origin(kind) is not typing.Literal:
        for item in typing.get_args(kind):
            yield from parts(item)


def reachable() -> tuple[list[type], list[Any]]:
    """The dataclasses and the named Literals under ROOTS, each after what it uses."""
    classes: list[type] = []
    names: list[Any] = []

    def visit(cls: type) -> None:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            for part in parts(hints[field.name]):
                if dataclasses.is_dataclass(part) and part not in classes:
                    visit(typing.cast(type, part))
                elif part in ALIASES and part not in names:
                    names.append(part)
        classes.append(cls)

    for root in ROOTS:
        visit(root)
    return classes, names


def comment(text: str, indent: str = "") -> list[str]:
    words = re.sub(r"\bNone\b", "null", " ".join(text.split()))
    return [f"{indent}/** {words} */"] if words else []


def interface(cls: type) -> str:
    hints, docs = typing.get_type_hints(cls), field_docs(cls)
    lines = [*comment(inspect.getdoc(cls) or ""), f"export interface {cls.__name__} {{"]
    for field in dataclasses.fields(cls):
        lines += comment(docs.get(field.name, ""), "  ")
        lines.append(f"  readonly {field.name}: {type_name(hints[field.name])};")
    return "\n".join([*lines, "}"]) + "\n"


def render() -> str:
    """The whole of contract.ts."""
    classes, names = reachable()
    aliases = "".join(f"export type {ALIASES[kind]} = {literal(kind)};\n" for kind in names)
    return "\n".join([HEADER, aliases, *(interface(cls) for cls in classes)])


def main(argv: list[str] | None = None) -> int:
    """Writes or checks contract.ts; returns the exit status."""
    parser = argparse.ArgumentParser(description="TypeScript types of the API, from app/contract.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    parser.add_argument("--target", type=Path, default=TARGET, help="the file (default: the client's)")
    options = parser.parse_args(argv)
    wanted = render()
    if not options.check:
        options.target.write_text(wanted, encoding="utf-8")
        return 0
    present = options.target.read_text(encoding="utf-8") if options.target.exists() else ""
    if present == wanted:
        return 0
    print(f"{options.target.name} is not what app/contract says; run python -m tools.client_types", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
