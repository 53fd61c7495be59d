"""Headers that every response carries, whatever made it."""

from __future__ import annotations

from flask import Flask, Response, request

_HEADERS = {
    # What default-src leaves open is listed; all that the page loads and asks for is its own.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def init_app(app: Flask) -> None:
    """Adds the headers where a view has not set its own."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if (request.blueprint or "page") != "page":
        # What a member has asked for is kept by no cache, neither the browser's nor a proxy's.
        response.cache_control.no_store = True
    return response
