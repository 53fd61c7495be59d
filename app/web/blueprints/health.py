"""Liveness and readiness, public, for orchestrators."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.contract.codec import to_json
from app.web.monitoring.status_file import describe_phase
from app.web.services import services

bp = Blueprint("health", __name__)


@bp.get("/health/live")
def live() -> Response:
    """200 while this process runs."""
    return _no_store(jsonify(status="ok"))


@bp.get("/health/ready")
@bp.get("/ping")
def ready() -> Response:
    """200 if the model answers, else 503 with phase and progress. Reasons are only shown to clients with the key."""
    status = services().status.read()
    response = jsonify(phase=status.phase, progress=to_json(status.progress), message=describe_phase(status))
    if status.phase != "ready":
        response.status_code = 503
    return _no_store(response)


def _no_store(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
