"""Parsers of the settings of access. No message repeats a key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

KEY = re.compile(r"[!-~]{16,512}")
KEY_RULE = "should be 16 to 512 printable ASCII characters without spaces"
MOST_PROXIES = 10


def auth(value: str) -> bool:
    """Whether a key is required."""
    if value not in ("on", "off"):
        raise ValueError("should be on or off")
    return value == "on"


def key(value: str) -> str:
    """Printable, so that it can stand in a header, and too long to be guessed."""
    if not KEY.fullmatch(value):
        raise ValueError(KEY_RULE)
    return value


def key_in(value: str) -> str:
    """The key that a file holds, such as a Docker secret; a newline at its end doesn't count."""
    try:
        with Path(value).open(encoding="utf-8") as file:
            content = file.read(4096).strip()
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError("is not text") from error
    if not content:
        raise ValueError("is empty; put the key into it")
    if not KEY.fullmatch(content):
        raise ValueError(f"doesn't hold a key: it {KEY_RULE}")
    return content


def address(value: str) -> str:
    """The address to listen on."""
    if not re.fullmatch(r"[0-9A-Za-z.:_-]+", value):
        raise ValueError("should be an address such as 127.0.0.1 or 0.0.0.0")
    return value


def published(value: str) -> str:
    """The host's address that Compose publishes the port on; IPv6 stands in brackets there."""
    return value.strip("[]")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it; a name that is not `localhost` counts as public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def conflicts(values: Mapping[str, str], auth: bool, bind: str) -> list[str]:
    """What contradicts: two keys, a key with access open to all, and open access that others can reach."""
    names = [name for name in ("GLM_API_KEY", "GLM_API_KEY_FILE") if values.get(name, "").strip()]
    lines = []
    if len(names) > 1:
        lines.append("GLM_API_KEY and GLM_API_KEY_FILE are both set; remove one of them")
    if names and not auth:
        lines.append(f"GLM_AUTH=off: {names[0]} would not be asked for; remove one of the two")
    if not auth and not is_loopback(bind):
        lines.append(
            f"GLM_AUTH=off: only allowed on a loopback address; GLM_BIND={bind} is not one; "
            "set GLM_BIND=127.0.0.1, or remove GLM_AUTH"
        )
    return lines
