"""Turns errors into responses: OpenAI's JSON for programs, plain text for browsers."""

from __future__ import annotations

import logging
import math

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from app.web.engine_client.client import ClientLeftError
from app.web.http.errors import ApiError
from app.web.monitoring import request_log
from app.web.store.errors import (
    ConflictError,
    FullError,
    InvalidFieldError,
    NotFoundError,
    StoreError,
    UnavailableError,
)

_JSON_PREFIXES = (
    *("/v1", "/api", "/health", "/ping", "/tokenize", "/detokenize", "/invocations"),
    *("/metrics", "/openapi.json"),
)
_CLIENT_LEFT = 499
"""nginx's status for a client that closed its connection. Only the log shows it."""
_STORE_STATUS: dict[type[StoreError], int] = {
    InvalidFieldError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    UnavailableError: 503,
    FullError: 507,
}
_STORE_RETRY_SECONDS: dict[type[StoreError], float] = {UnavailableError: 5, FullError: 30}
_log = logging.getLogger("berth.web")


def init_app(app: Flask) -> None:
    """Registers the handlers."""
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(StoreError, _store_error)
    app.register_error_handler(ClientLeftError, _client_left)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def _api_error(error: ApiError) -> Response:
    request_log.current().outcome = error.code
    response = jsonify(error.body())
    response.status_code = error.status
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if error.status == 408:
        response.headers["x-should-retry"] = "false"  # OpenAI's clients retry a 408; this one would take too long again
    return response


def _store_error(error: StoreError) -> Response:
    kind = type(error)
    retry = _STORE_RETRY_SECONDS.get(kind)
    return _api_error(ApiError(_STORE_STATUS[kind], error.message, error.code, error.param, retry))


def _client_left(_error: ClientLeftError) -> Response:
    request_log.current().outcome = "client_left"
    return Response(status=_CLIENT_LEFT)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if not _wants_json():
        response = Response(f"{status} {error.name}\n", status, mimetype="text/plain")
    else:
        response = _api_error(ApiError(status, _message(error), error.name.lower().replace(" ", "_")))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _message(error: HTTPException) -> str:
    if error.code == 404:
        return f"{request.method} {request.path} does not exist."
    if error.code == 405:
        return f"{request.path} does not support {request.method}."
    if error.code == 413:
        return f"The request is larger than {request.max_content_length} bytes."
    return error.description or error.name


def _unexpected(error: Exception) -> Response:
    _log.error("unexpected error at %s %s", request.method, request.path, exc_info=error)
    if not _wants_json():
        return Response("500 Internal Server Error\n", 500, mimetype="text/plain")
    return _api_error(ApiError(500, "Something went wrong in the service; see its log.", "internal_error"))


def _wants_json() -> bool:
    return any(request.path == prefix or request.path.startswith(f"{prefix}/") for prefix in _JSON_PREFIXES)
