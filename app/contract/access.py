"""What the page and the service say to each other about who is signed in: the bodies of /api/session, as JSON.

    GET    /api/session            Session
    POST   /api/session            SignIn -> Session, and the cookie
    DELETE /api/session            204; the cookie is worth nothing any more

Programs send the key with each request instead, as `Authorization: Bearer <key>`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SignIn:
    """Asks to be let in."""

    key: str


@dataclass(frozen=True)
class Session:
    """Whether this browser may go on."""

    key_needed: bool
    """False where access is open (GLM_AUTH=off)."""
    signed_in: bool
    csrf_token: str | None
    """Sent back as X-CSRFToken with whatever changes something; None where nobody is signed in."""
