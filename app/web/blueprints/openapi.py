"""The API's OpenAPI document."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from app.web.openapi.document import describe
from app.web.services import services

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
def openapi() -> Response:
    """OpenAPI 3.1 for all routes."""
    shared = services()
    return jsonify(describe(current_app, shared.status.read().version, shared.config.KEY_FILE is None))
