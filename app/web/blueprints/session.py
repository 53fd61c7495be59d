"""Sign in to the page and out of it. Programs send the key with each request instead."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.contract.access import SignIn
from app.contract.codec import to_json
from app.web.access.guard import refuse_other_origins
from app.web.http import fields
from app.web.http.errors import ApiError, bad_field
from app.web.http.json_body import read_object
from app.web.services import services

bp = Blueprint("session", __name__)

MAX_BODY_BYTES = 4096


@bp.get("/api/session")
def show() -> Response:
    """Whether a key is needed, and whether this browser is signed in."""
    return jsonify(to_json(services().access.session()))


@bp.post("/api/session")
def sign_in() -> Response:
    """Checks the key and sets a cookie."""
    refuse_other_origins()
    services().access.sign_in(_read_sign_in().key)
    return show()


@bp.delete("/api/session")
def sign_out() -> Response:
    """Ends the session on the server as well."""
    services().access.sign_out()
    return Response(status=204)


def _read_sign_in() -> SignIn:
    """Reads the body. Anybody can send one, so it must be small and its length known in advance."""
    if request.headers.get("Expect"):
        raise ApiError(417, "Send the body at once, without Expect.", "expectation_failed")
    request.max_content_length = MAX_BODY_BYTES
    if request.content_length is None:
        raise ApiError(411, "Content-Length is required.", "length_required")
    body = read_object(request)
    fields.check_names("", body, ("key",))
    if "key" not in body:
        raise bad_field("key", "is missing", "missing_required_parameter")
    return SignIn(fields.text("key", body["key"]))
