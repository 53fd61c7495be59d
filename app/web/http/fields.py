"""Taking fields out of parsed JSON with their types checked; each error names the field by its path."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from app.web.http.errors import ApiError, bad_field

NAMES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a number"}


def name_of(value: Any) -> str:
    """What JSON calls a value's type."""
    return "null" if value is None else NAMES.get(type(value), "something else")


def wrong_type(path: str, expected: str, value: Any) -> ApiError:
    """A 400 in OpenAI's words for a value of another type."""
    return bad_field(path, f"should be {expected}, is {name_of(value)}", "invalid_type")


def text(path: str, value: Any) -> str:
    """A string that is valid Unicode: half of a surrogate pair can be neither tokenised nor sent on."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise bad_field(path, f"holds half of a surrogate pair at character {error.start}") from None
    return value


def boolean(path: str, value: Any) -> bool:
    """True or false; null counts as false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean", value)
    return value


def integer(path: str, value: Any, low: int, high: int) -> int | None:
    """An integer within bounds, or None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(path, "an integer", value)
    if not low <= value <= high:
        raise bad_field(path, f"should be from {low} to {high}, is {_short(value)}")
    return value


def number(path: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float | None:
    """A number within bounds, or None; with `open_low` the lower bound itself is outside."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise wrong_type(path, "a number", value)
    if not low <= value <= high or (open_low and value == low):
        words = "above" if open_low else "from"
        raise bad_field(path, f"should be {words} {low:g} to {high:g}, is {_short(value)}")
    return float(value)


def check_names(path: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses names that nobody reads: ignoring them would change the answer without a word."""
    names = list(known)
    for name in given:
        if name in names:
            continue
        near = difflib.get_close_matches(name[:60], names, n=1)  # of a long one it would take a while
        hint = f"; did you mean {near[0]}?" if near else ""
        raise bad_field(f"{path}{_short(name)}", f"is not a field that Berth knows{hint}", "unknown_parameter")


def _short(value: Any) -> str:
    shown = str(value).encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
