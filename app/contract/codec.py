"""Frozen dataclasses to JSON and back, checked on the way in: what crosses a process border is never a bare dict."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ContractError(ValueError):
    """A JSON value that is not what the contract says; the message names the place."""


def to_json(value: Any) -> Any:
    """Turns dataclasses, tuples and dicts of them into what `json.dumps` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: Any, where: str = "value") -> T:
    """Builds `kind` from parsed JSON. Unknown keys are ignored, so that an older reader meets a newer writer.

    Raises:
        ContractError: a key is missing or a value has another type than the dataclass says.
    """
    return typing.cast(T, _decode(kind, value, where))


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is typing.Literal:
        return _expect(value in args, value, where, f"one of {args}")
    if origin is tuple:
        _expect(isinstance(value, list), value, where, "a list")
        return tuple(_decode(args[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: _decode(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float:
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), value, where, "a number")
        return _float(value, where)
    _expect(isinstance(value, kind) and not (kind is int and isinstance(value, bool)), value, where, kind.__name__)
    return value


def _float(value: int | float, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ContractError(f"{where} is a number too large to be read") from None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    # Evaluating the annotations takes most of a decode, and one happens for every token.
    return typing.get_type_hints(kind)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, where, "an object")
    hints = _hints(kind)
    given = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            given[field.name] = _decode(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ContractError(f"{where}.{field.name} is missing")
    return kind(**given)


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    tagged: list[Any] = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if len(tagged) > 1:
        name = value.get("type") if isinstance(value, dict) else None
        by_name = {typing.get_args(_hints(kind)["type"])[0]: kind for kind in tagged}
        _expect(isinstance(name, str) and name in by_name, value, where, f"an object with a type of {sorted(by_name)}")
        return _decode(by_name[name], value, where)
    reasons = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _decode(kind, value, where)
        except ContractError as error:
            reasons.append(str(error))
    raise ContractError("; ".join(reasons))


def _expect(fine: bool, value: Any, where: str, expected: str) -> Any:
    if not fine:
        raise ContractError(f"{where} should be {expected}, is {str(value)[:80]!r}")
    return value


def dump_line(value: Any) -> bytes:
    """One JSON object and a newline, the framing of every pipe and socket here."""
    return json.dumps(to_json(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def write_atomically(path: Path, value: Any) -> None:
    """Replaces a JSON file so that a reader sees the old one or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(to_json(value), file, ensure_ascii=False, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
