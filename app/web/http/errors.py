"""The API's error, in OpenAI's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class ApiError(Exception):
    """An error response in OpenAI's shape. `param` is the name of the field at fault."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_seconds: float | None = None

    def body(self) -> dict[str, Any]:
        """The response's JSON."""
        return {
            "error": {"message": self.message, "type": _type_of(self.status), "param": self.param, "code": self.code}
        }


def bad_field(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A 400 that names the field."""
    return ApiError(400, f"{param}: {message}", code, param)


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
