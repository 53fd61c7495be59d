"""Reads a request's body as strict JSON."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from flask import Request

from app.web.http.errors import ApiError


def read_object(request: Request) -> dict[str, Any]:
    """Parses the body.

    Raises:
        ApiError: 415 for another content type, 400 if the body is not a JSON object.
    """
    if not request.is_json:
        content_type = request.mimetype or "none"
        message = f"The content type must be application/json, is {content_type}."
        raise ApiError(415, message, "unsupported_media_type")
    value = parse(request.get_data(cache=False))
    if not isinstance(value, dict):
        raise _not_json("it is not an object")
    return value


def parse(body: bytes) -> Any:
    """Parses JSON as RFC 8259 defines it: UTF-8, finite numbers. Raises a 400, also for deep nesting."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise _not_json("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise _not_json("it is not UTF-8") from None
    except ValueError as error:
        raise _not_json(str(error)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _not_json(why: str) -> ApiError:
    return ApiError(400, f"The body cannot be read as JSON: {why}.", "invalid_json")
