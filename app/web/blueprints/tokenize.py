"""vLLM's two questions about tokens: the exact prompt ids of a conversation or a text, and the text of ids."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.contract.wire import Detokenized, Tokenized
from app.web.chat.tokenize import read_detokenize, read_tokenize
from app.web.engine_client.turn import ask
from app.web.http.json_body import read_object
from app.web.monitoring import request_log
from app.web.services import services

bp = Blueprint("tokenize", __name__)


@bp.post("/tokenize")
def tokenize() -> Response:
    """The ids that the model would see."""
    body, record = read_object(request), request_log.current()
    question = read_tokenize(body, services().model_name, record.id)
    reply = ask(
        services().status, services().engine, question, Tokenized, request.environ.get("gunicorn.socket"), record
    )
    return jsonify(count=len(reply.tokens), max_model_len=reply.max_model_len, tokens=reply.tokens)


@bp.post("/detokenize")
def detokenize() -> Response:
    """The text of ids, control tokens written out."""
    body, record = read_object(request), request_log.current()
    question = read_detokenize(body, services().model_name, record.id)
    reply = ask(
        services().status, services().engine, question, Detokenized, request.environ.get("gunicorn.socket"), record
    )
    return jsonify(prompt=reply.text)
