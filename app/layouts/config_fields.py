"""Checks fields of a parsed config.json one by one; an error names the field, its value and what is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping

LARGEST_SIZE = 1 << 24
"""Far above every published size; a config with a larger one is damaged, and would only cost time."""


class LayoutError(ValueError):
    """A config.json that matches no layout; the message names the field and what is needed."""


def count(
    config: Mapping[str, object], field: str, default: int | None = None, *, least: int = 1, most: int = LARGEST_SIZE
) -> int:
    """A whole number from `least` to `most`; `default` replaces a field that is missing or null."""
    value = config.get(field)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise LayoutError(f"{field} is {value!r}; a whole number from {least} to {most} is needed")
    return value


def flag(config: Mapping[str, object], field: str, default: bool = False) -> bool:
    """True or false; `default` replaces a missing field."""
    value = config.get(field, default)
    if not isinstance(value, bool):
        raise LayoutError(f"{field} is {value!r}; true or false is needed")
    return value


def positive(config: Mapping[str, object], field: str, default: float | None = None) -> float:
    """A finite number above zero; `default` replaces a field that is missing or null."""
    value = config.get(field)
    if value is None:
        value = default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise LayoutError(f"{field} is {value!r}; a positive number is needed")
    return value
