"""Parsers of settings' values; each raises ValueError that says what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable


def count(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise ValueError(f"should be a whole number from {least} to {most}")
        return int(value)

    return parse


def auto_or_count(least: int, most: int | None = None) -> Callable[[str], int | None]:
    """The same, or `auto`, which is None."""
    said = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(value: str) -> int | None:
        if value == "auto":
            return None
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= (most or int(value)):
            raise ValueError(f"should be auto or a whole number {said}")
        return int(value)

    return parse


def flag(value: str) -> bool:
    """0 or 1."""
    if value not in ("0", "1"):
        raise ValueError("should be 0 or 1")
    return value == "1"
