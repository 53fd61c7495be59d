"""OpenAI's API: the served model, and chat completions, whole or streamed."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.contract.status import Status
from app.web.chat.completion import Completion, admit
from app.web.chat.request import ChatCall, model_not_found, read_chat
from app.web.chat.response import ChatResponse
from app.web.http.json_body import read_object
from app.web.monitoring import request_log
from app.web.services import services

bp = Blueprint("openai", __name__, url_prefix="/v1")

_STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


@bp.get("/models")
def list_models() -> Response:
    """The served model, in a list of one."""
    return jsonify(object="list", data=[_model()])


@bp.get("/models/<path:model_id>")
def get_model(model_id: str) -> Response:
    """The served model. Its id may contain slashes."""
    if model_id.rstrip("/") != services().model_name.rstrip("/"):
        raise model_not_found(model_id, "model")
    return jsonify(_model())


@bp.post("/chat/completions")
def chat_completions() -> Response:
    """One assistant turn."""
    shared, record = services(), request_log.current()
    record.metrics, record.model = shared.metrics, shared.model_name
    chat = read_chat(read_object(request), shared.model_name, record.id)
    record.stream = chat.stream
    client = request.environ.get("gunicorn.socket")
    completion = admit(shared.status, shared.engine, chat, client, record)
    return _stream(completion, chat) if chat.stream else _whole(completion, chat)


def _whole(completion: Completion, chat: ChatCall) -> Response:
    try:
        return jsonify(_response(chat).completion(*completion.whole()))
    finally:
        completion.close()


def _stream(completion: Completion, chat: ChatCall) -> Response:
    response = Response(completion.events(_response(chat)), mimetype="text/event-stream", headers=_STREAM_HEADERS)
    # Not in the generator: if it is closed before its first step, its `finally` never runs.
    response.call_on_close(completion.close)
    return response


def _response(chat: ChatCall) -> ChatResponse:
    status = services().status.read()
    fingerprint = f"berth_{status.precision}" if status.precision else None
    response_id = f"chatcmpl-{chat.request.request_id.removeprefix('req_')}"
    return ChatResponse(response_id, int(time.time()), services().model_name, fingerprint, chat.include_usage)


def _model() -> dict[str, Any]:
    status: Status = services().status.read()
    return {
        "id": services().model_name,
        "object": "model",
        "created": int(status.started_at),
        "owned_by": "berth",
        "max_model_len": status.max_model_len,
    }
