"""How errors become responses: OpenAI's JSON for programs, plain text for browsers."""

from __future__ import annotations

import logging
import math

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from app.web.engine_client.client import ClientLeftError
from app.web.http.errors import ApiError
from app.web.monitoring import request_log

_JSON_PREFIXES = (
    *("/v1", "/api", "/health", "/ping", "/tokenize", "/detokenize", "/invocations"),
    *("/metrics", "/openapi.json"),
)
_CLIENT_LEFT = 499
"""nginx's number for a client that closed its connection; only the log sees it."""
_log = logging.getLogger("berth.web")


def init_app(app: Flask) -> None:
    """Registers the handlers."""
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(ClientLeftError, _client_left)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unforeseen)


def _api_error(error: ApiError) -> Response:
    request_log.current().outcome = error.code
    response = jsonify(error.body())
    response.status_code = error.status
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if error.status == 408:
        response.headers["x-should-retry"] = "false"  # OpenAI's clients would send a request that took too long again
    return response


def _client_left(_error: ClientLeftError) -> Response:
    request_log.current().outcome = "client_left"
    return Response(status=_CLIENT_LEFT)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if not _wants_json():
        response = Response(f"{status} {error.name}\n", status, mimetype="text/plain")
    else:
        response = _api_error(ApiError(status, _explain(error), error.name.lower().replace(" ", "_")))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _explain(error: HTTPException) -> str:
    if error.code == 404:
        return f"There is nothing at {request.method} {request.path}."
    if error.code == 405:
        return f"{request.path} does not answer to {request.method}."
    if error.code == 413:
        return f"The request is larger than {request.max_content_length} bytes."
    return error.description or error.name


def _unforeseen(error: Exception) -> Response:
    _log.error("unforeseen error at %s %s", request.method, request.path, exc_info=error)
    if not _wants_json():
        return Response("500 Internal Server Error\n", 500, mimetype="text/plain")
    return _api_error(ApiError(500, "Something went wrong in the service; its log says what.", "internal_error"))


def _wants_json() -> bool:
    return any(request.path == prefix or request.path.startswith(f"{prefix}/") for prefix in _JSON_PREFIXES)
