"""Checks the types and values of fields in parsed JSON. Each error names the field by its path."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from app.contract.limits import Range
from app.web.http.errors import ApiError, bad_field

TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}


def name_of(value: Any) -> str:
    """JSON's name for a value's type, with an article."""
    return "null" if value is None else TYPE_NAMES.get(type(value), "something else")


def wrong_type(path: str, expected: str, value: Any) -> ApiError:
    """A 400 for a value of the wrong type; `expected` is the right one, with an article."""
    return bad_field(path, f"should be {expected}, is {name_of(value)}", "invalid_type")


def text(path: str, value: Any) -> str:
    """A string that is valid Unicode. A lone surrogate can neither be tokenised nor encoded."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise bad_field(path, f"contains half of a surrogate pair at character {error.start}") from None
    return value


def boolean(path: str, value: Any) -> bool:
    """True or false; null counts as false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean", value)
    return value


def integer(path: str, value: Any, low: int, high: int) -> int | None:
    """An integer from `low` to `high`, or None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(path, "an integer", value)
    if not low <= value <= high:
        raise bad_field(path, f"should be from {low} to {high}, is {_short(value)}")
    return value


def number(path: str, value: Any, bounds: Range) -> float | None:
    """A number within `bounds`, or None."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise wrong_type(path, "a number", value)
    if not bounds.holds(value):
        words = "above" if bounds.open_low else "from"
        raise bad_field(path, f"should be {words} {bounds.low:g} to {bounds.high:g}, is {_short(value)}")
    return float(value)


def check_names(path: str, present: Iterable[str], known: Iterable[str]) -> None:
    """Raises a 400 for an unknown field: ignored silently, it could change the answer."""
    names = list(known)
    for name in present:
        if name in names:
            continue
        near = difflib.get_close_matches(name[:60], names, n=1)  # slow for a long name
        hint = f"; did you mean {near[0]}?" if near else ""
        raise bad_field(f"{path}{_short(name)}", f"is not a known field{hint}", "unknown_parameter")


def _short(value: Any) -> str:
    shown = str(value).encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
