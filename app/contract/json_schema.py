"""The dataclasses as JSON Schema 2020-12, so that whoever describes them elsewhere says the same."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any

Schema = dict[str, Any]

_SCALARS: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"
}  # fmt: skip


class Definitions:
    """Schemas of dataclasses by name, as they are met.

    What Berth sends has every field; what it takes may leave out those that have a default. A class that goes both
    ways has a schema for each: the one for what is taken is called `<name>Input`.
    """

    def __init__(self, prefix: str) -> None:
        self.schemas: dict[str, Schema] = {}
        self._prefix = prefix

    def sent(self, kind: Any) -> Schema:
        """The schema of what Berth sends, a reference where it is a dataclass."""
        return self._schema(kind, "")

    def taken(self, kind: Any) -> Schema:
        """The schema of what Berth takes."""
        return self._schema(kind, "Input")

    def _schema(self, kind: Any, suffix: str) -> Schema:
        """Raises TypeError for an annotation that the contract has not used so far."""
        origin, args = typing.get_origin(kind), typing.get_args(kind)
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
        hints, docs = typing.get_type_hints(cls), field_docs(cls)
        properties, required = {}, []
        for field in dataclasses.fields(cls):
            properties[field.name] = self._schema(hints[field.name], suffix)
            if field.name in docs:
                properties[field.name]["description"] = _one_line(docs[field.name])
            if not suffix or (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING):
                required.append(field.name)
        schema |= {"properties": properties, "required": required}
        return name


def field_docs(cls: type) -> dict[str, str]:
    """The string below each attribute, by attribute."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for before, node in zip(body.body, body.body[1:], strict=False):
        if not isinstance(before, ast.AnnAssign) or not isinstance(before.target, ast.Name):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docs[before.target.id] = node.value.value
    return docs


def _any_of(schemas: list[Schema]) -> Schema:
    if all(set(schema) == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("None", "null")
