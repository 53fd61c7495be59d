"""The path that hosts like SageMaker send requests to. They know only this one and /ping."""

from __future__ import annotations

from flask import Blueprint, Response

from app.web.blueprints import openai

bp = Blueprint("invocations", __name__)


@bp.post("/invocations")
def invocations() -> Response:
    """The same as POST /v1/chat/completions."""
    return openai.chat_completions()
