"""Whether the process lives and whether the model answers; public, for orchestrators."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.contract.codec import to_json
from app.web.monitoring.status_file import words_of
from app.web.services import services

bp = Blueprint("health", __name__)


@bp.get("/health/live")
def live() -> Response:
    """200 as long as this process answers at all."""
    return _fresh(jsonify(status="ok"))


@bp.get("/health/ready")
@bp.get("/ping")
def ready() -> Response:
    """200 once the model answers; until then 503 with the phase and how far it is. Why is for those with the key."""
    status = services().status.read()
    response = jsonify(phase=status.phase, progress=to_json(status.progress), message=words_of(status))
    if status.phase != "ready":
        response.status_code = 503
    return _fresh(response)


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
