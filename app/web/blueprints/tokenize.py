"""vLLM's endpoints for tokens: the exact prompt ids of a conversation or a text, and the text of ids."""

from __future__ import annotations

from typing import TypeVar

from flask import Blueprint, Response, jsonify, request

from app.contract.wire import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from app.web.chat.tokenize import read_detokenize, read_tokenize
from app.web.engine_client.turn import ask
from app.web.http.json_body import read_object
from app.web.monitoring import request_log
from app.web.services import services

T = TypeVar("T", Tokenized, Detokenized)

bp = Blueprint("tokenize", __name__)


@bp.post("/tokenize")
def tokenize() -> Response:
    """The ids that the model would see."""
    body = read_object(request)
    reply = _ask(read_tokenize(body, services().model_name, request_log.current().id), Tokenized)
    return jsonify(count=len(reply.tokens), max_model_len=reply.max_model_len, tokens=reply.tokens)


@bp.post("/detokenize")
def detokenize() -> Response:
    """The text of ids, control tokens included."""
    body = read_object(request)
    reply = _ask(read_detokenize(body, services().model_name, request_log.current().id), Detokenized)
    return jsonify(prompt=reply.text)


def _ask(engine_request: TokenizeRequest | DetokenizeRequest, kind: type[T]) -> T:
    shared, client = services(), request.environ.get("gunicorn.socket")
    return ask(shared.status, shared.engine, engine_request, kind, client, request_log.current())
