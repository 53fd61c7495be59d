"""The request's body as strict JSON: what would trouble a reader further on is refused here, by name."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from flask import Request

from app.web.http.errors import ApiError


def read_object(request: Request) -> dict[str, Any]:
    """Parses the body.

    Raises:
        ApiError: 415 for another content type, 400 for anything but a JSON object.
    """
    if not request.is_json:
        given = request.mimetype or "none"
        raise ApiError(415, f"The content type must be application/json, is {given}.", "unsupported_media_type")
    value = parse(request.get_data(cache=False))
    if not isinstance(value, dict):
        raise _not_json("it is not an object")
    return value


def parse(body: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, finite numbers, of bearable depth."""
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
