"""Frozen dataclasses to JSON and back, checked on the way in: what crosses a process border is never a bare dict."""

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
"""Takes parsed JSON; raises `_Unfit`."""


class ContractError(ValueError):
    """A JSON value that is not what the contract says; the message names the place."""


def to_json(value: Any) -> Any:
    """Turns dataclasses, tuples and dicts of them into what `json.dumps` takes."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    kind: Any = type(value)  # mypy takes classes for unhashable
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
    """None where it is no dataclass."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def from_json(kind: type[T], value: Any, where: str = "value") -> T:
    """Builds `kind` from parsed JSON. Unknown keys are ignored, so that an older reader meets a newer writer.

    Raises:
        ContractError: a key is missing or a value has another type than the dataclass says.
    """
    cached: Any = kind  # as in `to_json`
    try:
        return typing.cast(T, _decoder(cached)(value))
    except _Unfit as unfit:
        raise ContractError(f"{where}{unfit.place} {unfit.text}") from None


class _Unfit(Exception):
    """What `ContractError` tells; each level that it passes adds where it is, so that good values name no places."""

    def __init__(self, text: str, place: str = "") -> None:
        self.text = text
        self.place = place

    def under(self, place: str) -> _Unfit:
        return _Unfit(self.text, place + self.place)


@functools.cache
def _decoder(kind: Any) -> Decoder:
    """Made once for each kind: to look at annotations takes most of a decode, and one happens for every token."""
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


def _checked(fits: Callable[[Any], bool], expected: str) -> Decoder:
    def decode(value: Any) -> Any:
        if not fits(value):
            raise _unfit(value, expected)
        return value

    return decode


def _unfit(value: Any, expected: str) -> _Unfit:
    return _Unfit(f"should be {expected}, is {str(value)[:80]!r}")


def _float(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _unfit(value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _Unfit("is a number too large to be read") from None


def _tuple_decoder(item_decoder: Decoder) -> Decoder:
    def decode(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _unfit(value, "a list")
        return tuple(_inside(item_decoder, item, "[{}]", place) for place, item in enumerate(value))

    return decode


def _dict_decoder(item_decoder: Decoder) -> Decoder:
    def decode(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _unfit(value, "an object")
        return {key: _inside(item_decoder, item, ".{}", key) for key, item in value.items()}

    return decode


def _inside(decoder: Decoder, value: Any, place: str, name: object) -> Any:
    try:
        return decoder(value)
    except _Unfit as unfit:
        raise unfit.under(place.format(name)) from None


def _dataclass_decoder(kind: Any) -> Decoder:
    hints = typing.get_type_hints(kind)
    # A field that is computed from the others is written for readers and not read.
    stored = [field for field in dataclasses.fields(kind) if field.init]
    fields = [(field.name, _decoder(hints[field.name]), _is_needed(field)) for field in stored]

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _unfit(value, "an object")
        given = {}
        for name, decoder, needed in fields:
            if name in value:
                given[name] = _inside(decoder, value[name], ".{}", name)
            elif needed:
                raise _Unfit("is missing", f".{name}")
        return kind(**given)

    return decode


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _union_decoder(kinds: tuple[Any, ...]) -> Decoder:
    """Of dataclasses told apart by their `type`, or of one other kind; with or without None."""
    some = [kind for kind in kinds if kind is not type(None)]
    decoder = _decoder(some[0]) if len(some) == 1 else _tagged_decoder(some)
    if len(some) == len(kinds):
        return decoder
    return lambda value: None if value is None else decoder(value)


def _tagged_decoder(kinds: list[Any]) -> Decoder:
    decoders = {typing.get_args(typing.get_type_hints(kind)["type"])[0]: _decoder(kind) for kind in kinds}
    expected = f"an object with a type of {sorted(decoders)}"

    def decode(value: Any) -> Any:
        name = value.get("type") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in decoders:
            raise _unfit(value, expected)
        return decoders[name](value)

    return decode


_encode_line = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def dump_line(value: Any) -> bytes:
    """One JSON object and a newline, the framing of every pipe and socket here."""
    return _encode_line(to_json(value)).encode() + b"\n"


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
