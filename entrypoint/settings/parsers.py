"""Parsers of settings' values; each raises ValueError that says what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from app.contract.plan import PRECISIONS, Precision

OnRefusal = Literal["wait", "exit"]


def count(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise ValueError(f"should be a whole number from {least} to {most}")
        return int(value)

    return parse


def auto_or_count(least: int, most: int | None = None) -> Callable[[str], int | None]:
    """The same, or `auto`, which is None."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(value: str) -> int | None:
        if value == "auto":
            return None
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= (most or int(value)):
            raise ValueError(f"should be auto or a whole number {bounds}")
        return int(value)

    return parse


def flag(value: str) -> bool:
    """0 or 1."""
    if value not in ("0", "1"):
        raise ValueError("should be 0 or 1")
    return value == "1"


def revision(value: str) -> str:
    """A branch, a tag or a commit."""
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._/-]*", value) or ".." in value:
        raise ValueError("should be a branch, a tag or a commit, such as main")
    return value


def token(value: str) -> str:
    """What goes into a header; no message repeats it."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("should be one word without spaces, such as hf_... from the hub's settings page")
    return value


def endpoint(value: str) -> str:
    """Without a slash at its end."""
    if not re.fullmatch(r"https?://[0-9A-Za-z.:\[\]-]+(/[0-9A-Za-z._~/-]*)?", value):
        raise ValueError("should be an address such as https://huggingface.co, without user and password")
    return value.rstrip("/")


def hub_flag(value: str) -> bool:
    """As huggingface_hub reads it."""
    if value.lower() in ("1", "on", "yes", "true"):
        return True
    if value.lower() in ("0", "off", "no", "false"):
        return False
    raise ValueError("should be 0 or 1")


def precision(value: str) -> Precision | None:
    """One of PRECISIONS, or `auto`, which is None."""
    if value == "auto":
        return None
    for name in PRECISIONS:
        if value == name:
            return name
    raise ValueError(f"should be auto or one of {', '.join(PRECISIONS)}")


def on_refusal(value: str) -> OnRefusal:
    """`wait` or `exit`."""
    if value == "wait":
        return "wait"
    if value == "exit":
        return "exit"
    raise ValueError("should be wait or exit")
