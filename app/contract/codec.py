"""Converts frozen dataclasses to JSON and back, and checks types when reading.

Everything that crosses a process boundary is one of these dataclasses. msgspec would do the same, but the supervisor
uses the standard library only, and these errors name the field in words that are shown to users.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Decoder = Callable[[Any], Any]
"""Converts parsed JSON to a value. Raises `_InvalidError`."""


class ContractError(ValueError):
    """A JSON value doesn't match its dataclass. The message names the field."""


def to_json(value: Any) -> Any:
    """Converts dataclasses, and tuples and dicts of them, to values that `json.dumps` accepts."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    kind: Any = type(value)  # mypy considers classes unhashable
    names = _field_names(kind)
    if names is not None:
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """The names of a dataclass's fields; None for any other class."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def from_json(kind: type[T], value: Any, where: str = "value") -> T:
    """Makes a `kind` from parsed JSON. Unknown keys are ignored, so that an older reader accepts a newer writer.

    `where` is the value's name in errors.

    Raises:
        ContractError: a key is missing, or a value has the wrong type.
    """
    cached: Any = kind  # as in `to_json`
    try:
        return typing.cast(T, _decoder(cached)(value))
    except _InvalidError as error:
        raise ContractError(f"{where}{error.path} {error.text}") from None


class _InvalidError(Exception):
    """Becomes a `ContractError`. Each level adds its part of the path on the way up, so valid values need no paths."""

    def __init__(self, text: str, path: str = "") -> None:
        self.text = text
        self.path = path

    def under(self, path: str) -> _InvalidError:
        return _InvalidError(self.text, path + self.path)


@functools.cache
def _decoder(kind: Any) -> Decoder:
    """Cached by kind: reading annotations would take most of the time of a decode, and each token is decoded."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(args)
    if origin is typing.Literal:
        return _checked(lambda value: value in args, f"one of {args}")
    if origin is tuple:
        return _tuple_decoder(_decoder(args[0]))
    if origin is dict:
        return _dict_decoder(_decoder(args[1]))
    if kind is Any:
        return lambda value: value
    if kind is float:
        return _float
    if kind is int:
        return _checked(lambda value: isinstance(value, int) and not isinstance(value, bool), "int")
    return _checked(lambda value: isinstance(value, kind), kind.__name__)


def _checked(matches: Callable[[Any], bool], expected: str) -> Decoder:
    def decode(value: Any) -> Any:
        if not matches(value):
            raise _wrong_type(value, expected)
        return value

    return decode


def _wrong_type(value: Any, expected: str) -> _InvalidError:
    return _InvalidError(f"should be {expected}, is {str(value)[:80]!r}")


def _float(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _wrong_type(value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _InvalidError("is too large a number") from None


def _tuple_decoder(item_decoder: Decoder) -> Decoder:
    def decode(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong_type(value, "a list")
        return tuple(_decode_item(item_decoder, item, "[{}]", index) for index, item in enumerate(value))

    return decode


def _dict_decoder(item_decoder: Decoder) -> Decoder:
    def decode(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong_type(value, "an object")
        return {key: _decode_item(item_decoder, item, ".{}", key) for key, item in value.items()}

    return decode


def _decode_item(decoder: Decoder, value: Any, path: str, name: object) -> Any:
    try:
        return decoder(value)
    except _InvalidError as error:
        raise error.under(path.format(name)) from None


def _dataclass_decoder(kind: Any) -> Decoder:
    hints = typing.get_type_hints(kind)
    # A field that is computed from the others is written for readers and not read.
    stored = [field for field in dataclasses.fields(kind) if field.init]
    fields = [(field.name, _decoder(hints[field.name]), _is_needed(field)) for field in stored]

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong_type(value, "an object")
        arguments = {}
        for name, decoder, needed in fields:
            if name in value:
                arguments[name] = _decode_item(decoder, value[name], ".{}", name)
            elif needed:
                raise _InvalidError("is missing", f".{name}")
        return kind(**arguments)

    return decode


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _union_decoder(kinds: tuple[Any, ...]) -> Decoder:
    """Of dataclasses with different values of `type`, or of one other kind; with or without None."""
    present = [kind for kind in kinds if kind is not type(None)]
    decoder = _decoder(present[0]) if len(present) == 1 else _tagged_decoder(present)
    if len(present) == len(kinds):
        return decoder
    return lambda value: None if value is None else decoder(value)


def _tagged_decoder(kinds: list[Any]) -> Decoder:
    decoders = {typing.get_args(typing.get_type_hints(kind)["type"])[0]: _decoder(kind) for kind in kinds}
    expected = f"an object with a type of {sorted(decoders)}"

    def decode(value: Any) -> Any:
        name = value.get("type") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in decoders:
            raise _wrong_type(value, expected)
        return decoders[name](value)

    return decode


_encode_line = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def dump_line(value: Any) -> bytes:
    """One JSON object and a newline: the framing of all pipes and sockets here."""
    return _encode_line(to_json(value)).encode() + b"\n"


def write_atomically(path: Path, value: Any) -> None:
    """Replaces a JSON file atomically: a reader sees the old one or the new one."""
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
