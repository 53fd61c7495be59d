"""Who is signed in: Flask's signed cookie holds an id, and the service keeps which ids still count."""

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
"""From the sign-in on, however much it is used."""
MOST = 1000
"""More sign-ins than that end the oldest."""
_log = logging.getLogger("berth.web")


@dataclass(frozen=True)
class _Kept:
    """sessions.json."""

    secret: str = field(repr=False)
    """Signs the cookies."""
    live: dict[str, float] = field(default_factory=dict, repr=False)
    """Until when each id counts, Unix time."""


class Sessions:
    """The sessions of one state directory. They outlive the service, but not a change of the key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kept = _read(path) or _Kept(secrets.token_urlsafe(32))
        self._write()

    def init_app(self, app: Flask, key: str) -> None:
        """Makes Flask's sessions those of this service. `key` goes into the signature: with another, none is valid."""
        app.secret_key = f"{self._kept.secret}:{key}"
        app.session_interface = _Cookies()
        # Cookies know no ports: the name tells two services on one host apart.
        name = hashlib.sha256(f"cookie name of {self._kept.secret}".encode()).hexdigest()[:8]
        app.config.update(
            SESSION_COOKIE_NAME=f"berth_{name}",
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Strict",
            SESSION_REFRESH_EACH_REQUEST=False,
            PERMANENT_SESSION_LIFETIME=LIFETIME,
        )

    def begin(self) -> None:
        """Signs this browser in, with an id that nobody has seen before."""
        self.end()
        session["id"] = secrets.token_urlsafe(32)
        session.permanent = True
        now = time.time()
        with self._lock:
            live = {name: until for name, until in self._kept.live.items() if until > now}
            live[session["id"]] = now + LIFETIME.total_seconds()
            self._kept = _Kept(self._kept.secret, dict(list(live.items())[-MOST:]))
            self._write()

    def is_live(self) -> bool:
        """Whether the request at hand comes from a browser that is signed in."""
        return self._kept.live.get(session.get("id", ""), 0.0) > time.time()

    def end(self) -> None:
        """Signs this browser out: its cookie is worth nothing any more, wherever a copy of it is."""
        with self._lock:
            live = {name: until for name, until in self._kept.live.items() if name != session.get("id")}
            if len(live) != len(self._kept.live):
                self._kept = _Kept(self._kept.secret, live)
                self._write()
        session.clear()

    def _write(self) -> None:
        try:
            write_atomically(self._path, self._kept)
        except OSError as error:  # a full disk must not keep people out; they sign in again after the next start
            _log.error("%s can't be written: %s", self._path.name, error.strerror)


class _Cookies(SecureCookieSessionInterface):
    """Flask's own, for the path that a proxy puts before ours and for whether it speaks HTTPS."""

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root or "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def _read(path: Path) -> _Kept | None:
    try:
        return from_json(_Kept, json.loads(path.read_text(encoding="utf-8")), path.name)
    except FileNotFoundError:
        return None
    except (OSError, ContractError, ValueError):
        _log.warning("%s can't be read; everybody has to sign in again", path.name)
        return None
