"""The description of the API, for clients and tools that read OpenAPI."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from app.web.openapi.document import describe
from app.web.services import services

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
def openapi() -> Response:
    """OpenAPI 3.1 of every route that there is."""
    shared = services()
    return jsonify(describe(current_app, shared.status.read().version, shared.config.KEY_FILE is None))
