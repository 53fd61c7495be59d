"""The supervisor's status, which the page shows: phase, plan, progress, attempts, the last death."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, Response, jsonify

from app.contract.codec import to_json
from app.web.http.errors import ApiError
from app.web.monitoring.status_file import describe
from app.web.services import services

bp = Blueprint("status", __name__)

_FIRST_KEYS = ("chosen", "refusal", "rungs", "origins")
"""The keys that people look for, in the order of the log and the page."""


@bp.get("/api/status")
def status() -> Response:
    """The contract's `Status`. Unknown keys of the file are dropped."""
    return _json(to_json(services().status.read()))


@bp.get("/api/plan")
def plan() -> Response:
    """The contract's `Plan`, the chosen rung first. 503 while there is none."""
    status = services().status.read()
    if status.plan is None:
        raise ApiError(503, f"There is no plan yet. {describe(status)}", "no_plan", retry_after_seconds=1)
    body = to_json(replace(status.plan, rungs=status.plan.in_order))
    return _json({name: body[name] for name in _FIRST_KEYS} | body)


def _json(body: object) -> Response:
    response = jsonify(body)
    response.headers["Cache-Control"] = "no-store"
    return response
