"""The web client has a sentence, in each language, for every error code that the service can send."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from werkzeug.exceptions import default_exceptions

from app.web.openapi.operation import ERRORS
from tests.paths import TOP

LOCALES = TOP / "app" / "client" / "src" / "locale"
CODE_ARGUMENT = {
    **{"ApiError": 2, "bad_field": 2, "Failed": 1, "refusal": 2, "MessageError": 0},
    **{"NotFoundError": 1, "ConflictError": 1, "InvalidFieldError": 1, "UnavailableError": 1, "FullError": 1},
}
"""Position of `code` in what makes an error; each may also be called with `code=`."""
DEFAULT_CODE = "invalid_value"
"""Of `bad_field` and `refusal`."""


def modules() -> Iterator[ast.Module]:
    for package in ("app/web", "app/engine", "app/contract"):
        for path in sorted((TOP / package).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"), str(path))


def called(call: ast.Call) -> str:
    """The last name of the function: `Failed` for both `Failed(…)` and `wire.Failed(…)`."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def code_argument(call: ast.Call) -> ast.expr | None:
    position = CODE_ARGUMENT[called(call)]
    keyword = next((each.value for each in call.keywords if each.arg == "code"), None)
    return keyword or (call.args[position] if len(call.args) > position else None)


def constants(module: ast.Module) -> dict[str, str]:
    """Module constants that are strings, by name."""
    return {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def codes_in(module: ast.Module) -> Iterator[str]:
    """Codes written where an error is made. A code in a variable comes from another such place."""
    names = constants(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and called(node) in CODE_ARGUMENT:
            for part in ast.walk(code_argument(node) or ast.Constant(None)):
                match part:
                    case ast.Constant(value=str(code)) if re.fullmatch(r"[a-z]+(_[a-z]+)*", code):
                        yield code
                    case ast.Name(id=name) if name in names:
                        yield names[name]


def service_codes() -> set[str]:
    """Every code of the web service and the engine, and Flask's own for the statuses that the API documents."""
    written = {code for module in modules() for code in codes_in(module)}
    of_flask = {
        default_exceptions[status]().name.lower().replace(" ", "_")
        for status in (*ERRORS, 405)
        if status in default_exceptions
    }
    return written | of_flask | {DEFAULT_CODE}


def locale_codes(language: str) -> set[str]:
    text = (LOCALES / f"errors.{language}.ts").read_text(encoding="utf-8")
    return set(re.findall(r"^    ([a-z_]+):", text, re.MULTILINE))


def test_the_codes_are_read_from_the_source() -> None:
    assert service_codes() >= {
        "context_length_exceeded",
        "engine_died",
        "failed",
        "id_taken",
        "invalid_type",
        "queue_full",
        "request_entity_too_large",
        "storage_full",
        "unsupported_value",
    }


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_code_has_a_sentence(language: str) -> None:
    assert service_codes() - locale_codes(language) == set()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_sentence_is_for_a_code_that_nobody_sends(language: str) -> None:
    assert locale_codes(language) - service_codes() == set()


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('ApiError(429, "m", "a_code")', {"a_code"}),
        ('ApiError(429, "m", code="a_code")', {"a_code"}),
        ('wire.Failed(400, "a_code", "m")', {"a_code"}),
        ('FULL = "a_code"\nApiError(507, "m", FULL)', {"a_code"}),
        ('MessageError(error.code or "a_code", "m")', {"a_code"}),
        ('bad_field("p", "m")', set()),
        ("Failed(400, code, text)", set()),
    ],
)
def test_a_code_is_found_in(source: str, codes: set[str]) -> None:
    assert set(codes_in(ast.parse(source))) == codes
