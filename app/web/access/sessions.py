"""Sessions: Flask's signed cookie has a session's id, and the service stores which ids are valid."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface

from app.contract.codec import ContractError, from_json, write_atomically

LIFETIME = timedelta(days=30)
"""Counted from the sign-in; use doesn't extend it."""
MOST_SESSIONS = 1000
"""A further sign-in ends the oldest session."""
_log = logging.getLogger("berth.web")


@dataclass(frozen=True)
class _SessionData:
    """sessions.json."""

    secret: str = field(repr=False)
    """The cookies' signing key."""
    live: dict[str, float] = field(default_factory=dict, repr=False)
    """By id: when the session ends, Unix time, seconds."""


class Sessions:
    """The sessions of one state directory. They survive a restart, but not a new key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._data = _read(path) or _SessionData(secrets.token_urlsafe(32))
        self._write()

    def init_app(self, app: Flask, key: str) -> None:
        """Configures Flask's sessions. The signature includes `key`, so a new key ends all sessions."""
        app.secret_key = f"{self._data.secret}:{key}"
        app.session_interface = _Cookies()
        # Cookies ignore the port; two services on one host need different names.
        name = hashlib.sha256(f"cookie name of {self._data.secret}".encode()).hexdigest()[:8]
        app.config.update(
            SESSION_COOKIE_NAME=f"berth_{name}",
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Strict",
            SESSION_REFRESH_EACH_REQUEST=False,
            PERMANENT_SESSION_LIFETIME=LIFETIME,
        )

    def begin(self) -> None:
        """Signs this browser in, with a new id."""
        self.end()
        session["id"] = secrets.token_urlsafe(32)
        session.permanent = True
        now = time.time()
        with self._lock:
            live = {name: until for name, until in self._data.live.items() if until > now}
            live[session["id"]] = now + LIFETIME.total_seconds()
            self._data = _SessionData(self._data.secret, dict(list(live.items())[-MOST_SESSIONS:]))
            self._write()

    def is_live(self) -> bool:
        """Whether the current request's browser is signed in."""
        return self._data.live.get(session.get("id", ""), 0.0) > time.time()

    def end(self) -> None:
        """Signs this browser out. Copies of its cookie are no longer valid either."""
        with self._lock:
            live = {name: until for name, until in self._data.live.items() if name != session.get("id")}
            if len(live) != len(self._data.live):
                self._data = _SessionData(self._data.secret, live)
                self._write()
        session.clear()

    def _write(self) -> None:
        try:
            write_atomically(self._path, self._data)
        except OSError as error:  # a full disk must not prevent sign-ins; they are only lost at the next start
            _log.error("cannot write %s: %s", self._path.name, error.strerror)


class _Cookies(SecureCookieSessionInterface):
    """Flask's cookies, with the path prefix and the scheme that a proxy reports."""

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root or "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def _read(path: Path) -> _SessionData | None:
    try:
        return from_json(_SessionData, json.loads(path.read_text(encoding="utf-8")), path.name)
    except FileNotFoundError:
        return None
    except (OSError, ContractError, ValueError):
        _log.warning("cannot read %s; everybody must sign in again", path.name)
        return None
