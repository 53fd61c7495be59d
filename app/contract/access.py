"""The JSON bodies of /api/session, by which the page signs in and out.

    GET    /api/session            Session
    POST   /api/session            SignIn -> Session, and a cookie
    DELETE /api/session            204; the cookie is no longer valid

Programs send the key with each request instead, as `Authorization: Bearer <key>`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SignIn:
    """Body of a sign-in."""

    key: str


@dataclass(frozen=True)
class Session:
    """Whether this browser is signed in."""

    key_needed: bool
    """False if access is open (GLM_AUTH=off)."""
    signed_in: bool
    csrf_token: str | None
    """For the X-CSRFToken header of requests that change something; None if not signed in."""
