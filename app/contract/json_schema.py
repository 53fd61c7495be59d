"""Makes JSON Schema 2020-12 from the dataclasses, for /openapi.json.

msgspec could make it as well; see `codec` for why the contract doesn't use that.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

_SCALARS: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"
}  # fmt: skip


class Definitions:
    """Collects the schemas of dataclasses by name.

    Output has every field; input may leave out fields with a default. A class that is both has two schemas: the one
    for input is called `<name>Input`. Input of a `strict` class has no other fields, and null counts as left out.
    """

    def __init__(self, prefix: str, strict: Iterable[type] = ()) -> None:
        self.schemas: dict[str, Schema] = {}
        self._prefix = prefix
        self._strict = frozenset(strict)

    def output(self, kind: Any) -> Schema:
        """The schema of a value that Berth sends; a reference for a dataclass."""
        return self._schema(kind, "")

    def input(self, kind: Any) -> Schema:
        """The schema of a value that Berth receives; a reference for a dataclass."""
        return self._schema(kind, "Input")

    def _schema(self, kind: Any, suffix: str) -> Schema:
        """Raises TypeError for a kind of annotation that the contract doesn't use."""
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any:
            return {}
        if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        if dataclasses.is_dataclass(kind):
            return {"$ref": self._prefix + self._define(typing.cast(type, kind), suffix)}
        if origin is typing.Literal:
            return {"enum": list(args)} if len(args) > 1 else {"const": args[0]}
        if origin in (typing.Union, types.UnionType):
            return _any_of([self._schema(item, suffix) for item in args])
        if origin is tuple and args[1:] == (...,):
            return {"type": "array", "items": self._schema(args[0], suffix)}
        if origin is dict and args[0] is str:
            return {"type": "object", "additionalProperties": self._schema(args[1], suffix)}
        raise TypeError(f"no schema for {kind!r}")

    def _define(self, cls: type, suffix: str) -> str:
        name = cls.__name__ + suffix
        if name in self.schemas:
            return name
        schema = self.schemas[name] = {"type": "object", "description": _one_line(inspect.getdoc(cls) or "")}
        strict = bool(suffix) and cls in self._strict
        hints, docs = typing.get_type_hints(cls), field_docs(cls)
        properties, required = {}, []
        for field in dataclasses.fields(cls):
            required_here = not suffix or _without_default(field)
            item = self._schema(hints[field.name], suffix)
            properties[field.name] = item if required_here or not strict else _any_of([item, {"type": "null"}])
            if field.name in docs:
                properties[field.name]["description"] = _one_line(docs[field.name])
            if required_here:
                required.append(field.name)
        schema |= {
            "properties": properties,
            "required": required,
            **({"additionalProperties": False} if strict else {}),
        }
        return name


def field_docs(cls: type) -> dict[str, str]:
    """The docstring below each attribute, by attribute."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for before, node in zip(body.body, body.body[1:], strict=False):
        if not isinstance(before, ast.AnnAssign) or not isinstance(before.target, ast.Name):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docs[before.target.id] = node.value.value
    return docs


def _without_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _any_of(schemas: list[Schema]) -> Schema:
    """Any of the schemas. If all are plain types, one list of types."""
    if any(set(schema) != {"type"} for schema in schemas):
        return {"anyOf": schemas}
    names = [name for schema in schemas for name in _as_list(schema["type"])]
    return {"type": list(dict.fromkeys(names))}


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("None", "null")
