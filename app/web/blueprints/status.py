"""What the page shows: phase, plan, progress, attempts and the last death, as the supervisor wrote them."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, Response, jsonify

from app.contract.codec import to_json
from app.web.http.errors import ApiError
from app.web.monitoring.status_file import describe
from app.web.services import services

bp = Blueprint("status", __name__)

_FIRST = ("chosen", "refusal", "rungs", "origins")
"""What people ask of a plan, in the order in which the log and the page tell it."""


@bp.get("/api/status")
def status() -> Response:
    """The contract's `Status`; unknown keys of the file are not passed on."""
    return _fresh(to_json(services().status.read()))


@bp.get("/api/plan")
def plan() -> Response:
    """The present plan, the contract's `Plan`: the chosen rung first. 503 before there is one."""
    status = services().status.read()
    if status.plan is None:
        raise ApiError(503, f"There is no plan yet. {describe(status)}", "no_plan", retry_after_seconds=1)
    answer = to_json(replace(status.plan, rungs=status.plan.in_order))
    return _fresh({name: answer[name] for name in _FIRST} | answer)


def _fresh(answer: object) -> Response:
    response = jsonify(answer)
    response.headers["Cache-Control"] = "no-store"
    return response
