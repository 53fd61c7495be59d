"""The key to the service: the one that the user set, or one made at the first start; and how to sign in with it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from entrypoint.settings.access_parsers import KEY, KEY_RULE
from entrypoint.settings.settings import EVERYWHERE, Settings, SettingsError, address
from entrypoint.state.state_dir import StateDir


@dataclass(frozen=True)
class AccessFiles:
    """What the web service needs to check who may use it."""

    key_file: Path | None
    """None if access is open."""
    sessions_file: Path
    trusted_proxies: int


def open_access(settings: Settings, state: StateDir, run_dir: Path) -> AccessFiles:
    """Makes a key if none is set and none was made before, and writes it where the web service reads it.

    Raises:
        SettingsError: the key file in the state directory doesn't hold a key, or can't be written.
    """
    key_file: Path | None = None
    if settings.api_key is not None:
        key_file = run_dir / "api_key"
        _write(key_file, settings.api_key)
    elif settings.auth:
        key_file = state.api_key
        if not key_file.exists():
            _write(key_file, secrets.token_urlsafe(32))
        if read_made_key(key_file) is None:
            raise SettingsError(
                f"{key_file} doesn't hold a key: it {KEY_RULE}; remove it, and the next start makes another"
            )
    return AccessFiles(key_file, state.sessions, settings.trusted_proxies)


def how_to_open(settings: Settings, state: StateDir) -> str:
    """A sentence for the log. It is the one place that prints a key on purpose, and only one that Berth made."""
    opening = f"Open {sign_in_link(settings, state)}"
    if settings.published_bind in EVERYWHERE:
        opening += " (from another machine, use this machine's address)"
    if not settings.auth:
        return f"{opening} (GLM_AUTH=off: no key is needed on this machine)"
    if settings.api_key is not None:
        return f"{opening} and sign in with the key that you set"
    return f"{opening} to sign in (key stored in {state.api_key})"


def sign_in_link(settings: Settings, state: StateDir) -> str:
    """With the key behind `#`: browsers don't send that part, so it is in no access log, proxy log or Referer."""
    key = read_made_key(state.api_key) if settings.auth and settings.api_key is None else None
    return f"{address(settings)}/#key={key}" if key else address(settings)


def read_made_key(path: Path) -> str | None:
    """The key that Berth made; None if the file doesn't hold one."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return key if KEY.fullmatch(key) else None


def _write(path: Path, key: str) -> None:
    """Replaces a file that no other user may read."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SettingsError(f"{path} can't be written: {error.strerror}") from error
