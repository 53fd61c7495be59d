"""Access control: checks each request against its endpoint's rule before a view handles it."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, request
from flask_wtf.csrf import generate_csrf, validate_csrf
from wtforms import ValidationError

from app.contract.access import Session
from app.contract.config import AppConfig
from app.web.access.rate_limits import WRONG_BEARERS, WRONG_SIGN_INS, RateLimits
from app.web.access.rules import RULES
from app.web.access.sessions import Sessions
from app.web.http.errors import ApiError

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class KeyAccess:
    """Clients need the key or a session. No method reveals the key."""

    def __init__(self, key: str, sessions: Sessions) -> None:
        self._key = key.encode()
        self._sessions = sessions
        self._limits = RateLimits()

    def init_app(self, app: Flask) -> None:
        """Checks each request before its view."""
        self._sessions.init_app(app, self._key.decode())
        app.config["WTF_CSRF_TIME_LIMIT"] = None  # a token is valid as long as its session
        self._limits.init_app(app)
        app.before_request(self._check)

    def sign_in(self, key: str) -> None:
        """Begins a session. Raises a 401 for a wrong key, and a 429 after too many of them."""
        self._limits.check_wrong_keys(WRONG_SIGN_INS)
        if not hmac.compare_digest(key.encode("utf-8", "replace"), self._key):
            self._limits.count_wrong_key(WRONG_SIGN_INS)
            raise _wrong_key()
        self._sessions.begin()

    def sign_out(self) -> None:
        """Ends the session."""
        self._sessions.end()

    def session(self) -> Session:
        """The session of the current request."""
        signed_in = self._sessions.is_live()
        return Session(key_needed=True, signed_in=signed_in, csrf_token=generate_csrf() if signed_in else None)

    def _check(self) -> None:
        rule = _rule()
        if rule is None or rule == "public":
            return
        if rule == "member" and (key := _bearer()) is not None:
            self._check_bearer(key)
        elif not self._sessions.is_live():
            raise _no_key()
        elif request.method not in _SAFE_METHODS:
            refuse_other_origins()
            _check_csrf()
        self._limits.acquire()

    def _check_bearer(self, key: bytes) -> None:
        """The right key always passes, so that a guesser can't lock out others behind the same address."""
        if not hmac.compare_digest(key, self._key):
            self._limits.check_wrong_keys(WRONG_BEARERS)
            self._limits.count_wrong_key(WRONG_BEARERS)
            raise _wrong_key()


class OpenAccess:
    """GLM_AUTH=off: everybody on this machine, but no page of another site in this machine's browser."""

    def init_app(self, app: Flask) -> None:
        """Checks each request before its view."""
        app.before_request(self._check)

    def sign_in(self, key: str) -> None:
        """Does nothing: no key is needed."""

    def sign_out(self) -> None:
        """Does nothing: there are no sessions."""

    def session(self) -> Session:
        """A session that needs no key."""
        return Session(key_needed=False, signed_in=False, csrf_token=None)

    def _check(self) -> None:
        if _rule() == "member":
            _refuse_other_hosts()
            if request.method not in _SAFE_METHODS:
                refuse_other_origins()


def make_access(config: AppConfig) -> KeyAccess | OpenAccess:
    """The configured access control. Raises OSError if the key can't be read, ValueError if it is empty."""
    if config.KEY_FILE is None:
        return OpenAccess()
    key = Path(config.KEY_FILE).read_text(encoding="ascii").strip()
    if not key or config.SESSIONS_FILE is None:
        raise ValueError(f"{config.KEY_FILE} is empty, or config.json has no SESSIONS_FILE")
    return KeyAccess(key, Sessions(Path(config.SESSIONS_FILE)))


def refuse_other_origins() -> None:
    """Raises a 403 for requests from pages of another origin, as Go's net/http.CrossOriginProtection does.

    A page can't set Sec-Fetch-Site. If an old browser doesn't send it, Origin must name this host.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    same = site in ("same-origin", "none") if site else origin is None or _host_of(origin) == request.host
    if not same:
        raise ApiError(
            403,
            "This request comes from a page of another origin. Behind a reverse proxy, forward the Host header, or "
            "set GLM_TRUSTED_PROXIES.",
            "other_origin",
        )


def _check_csrf() -> None:
    try:
        validate_csrf(request.headers.get("X-CSRFToken"))
    except ValidationError as error:
        raise ApiError(403, f"{error.args[0]} Reload the page.", "csrf") from None


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _refuse_other_hosts() -> None:
    """Against DNS rebinding, where an attacker's name resolves to this machine. Addresses are safe."""
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name):
            return
    except ValueError:
        pass
    raise ApiError(
        403, "With GLM_AUTH=off, Berth accepts localhost and IP addresses as host, not other names.", "other_host"
    )


def _rule() -> str | None:
    """The endpoint's rule; None if the request has no endpoint."""
    if request.endpoint is None:
        return None
    rule = RULES.get(request.endpoint)
    if rule is None:
        raise ApiError(403, f"{request.endpoint} has no access rule in app/web/access/rules.py.", "no_access_rule")
    return rule


def _bearer() -> bytes | None:
    """The key in the Authorization header; None for other schemes, such as a proxy's."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else None


def _no_key() -> ApiError:
    message = "A key is required: sign in on the page, or send it as Authorization: Bearer <key>."
    return ApiError(401, message, "missing_api_key")


def _wrong_key() -> ApiError:
    return ApiError(401, "This is not the key of this service.", "invalid_api_key")
