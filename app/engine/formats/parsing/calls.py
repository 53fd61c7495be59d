"""The ways in which GLM generations write a tool call's arguments, each to a JSON object."""

from __future__ import annotations

import ast
import json
import keyword
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from app.engine.formats.parsing.text import replace_surrogates

ReadArguments = Callable[[str, str], str | None]
"""From a tool's name and a call's body to the arguments as JSON text; None where the body is no call."""

FENCE, FENCE_END = re.compile(r"```(?:python|py)?[ \t]*+\n"), "```"
ARGUMENT = re.compile(
    r"\s*+<arg_key>([^<]*)</arg_key>\s*+(?:<arg_value>(.*?)|((?:(?!<arg_).)*?))</arg_value>", re.DOTALL
)
"""Under load, 4.7 was seen to leave `<arg_value>` out and write all else (vLLM's issue 49248)."""
KINDS: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
"""JSON schema's names of what `json.loads` gives."""


def read_json(text: str) -> Any:
    """Parses JSON that a model or a stranger wrote. Raises ValueError, for NaN and for too deep nesting as well."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def as_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None where the text is none."""
    try:
        value = read_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_arguments(_name: str, body: str) -> str | None:
    """GLM-4's: the body is the object, and stays as it was written."""
    return body.strip() if as_object(body) is not None else None


def python_arguments(name: str, body: str) -> str | None:
    """ChatGLM3's: a Python call of literals by keyword, `tool_call(city='北京')`, mostly in a code block.

    It is read as syntax and never run: anything but a literal makes it no call.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the call's own escapes, such as "\d"
            call = ast.parse(_unfenced(body.strip()), mode="eval").body
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
                return None
            return _dump(_keywords(call)) if call.func.id in ("tool_call", name) else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _unfenced(text: str) -> str:
    start = FENCE.match(text)
    return text[start.end() :].removesuffix(FENCE_END).strip() if start and text.endswith(FENCE_END) else text


def _keywords(call: ast.Call) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for given in call.keywords:
        value = ast.literal_eval(given.value)
        # `**{...}` carries names that are no Python names; `python_call` writes them so.
        values |= value if given.arg is None else {given.arg: value}
    return values


def python_call(arguments: Mapping[str, Any]) -> str:
    """The same the other way round: the block in which ChatGLM3 calls with these arguments."""
    plain = {key: value for key, value in arguments.items() if _is_python_name(key)}
    parts = [f"{key}={value!r}" for key, value in plain.items()]
    if odd := {key: value for key, value in arguments.items() if key not in plain}:
        parts.append(f"**{odd!r}")
    return f"```python\ntool_call({', '.join(parts)})\n```"


def _is_python_name(key: str) -> bool:
    # Python reads names in their normal form only.
    return key.isidentifier() and not keyword.iskeyword(key) and unicodedata.normalize("NFKC", key) == key


def tagged_arguments(properties: Mapping[str, Any], body: str) -> str | None:
    """GLM-4.5's: pairs of `<arg_key>` and `<arg_value>`, with or without line ends between them.

    A value is bare text; the tool's schema, `properties`, says of which type it is.
    """
    values: dict[str, Any] = {}
    place = 0
    while match := ARGUMENT.match(body, place):
        key = match.group(1).strip()
        value = match.group(2) if match.group(3) is None else match.group(3)
        values[key] = typed(value, properties.get(key))
        place = match.end()
    if body[place:].strip():
        return None
    try:
        return _dump(values)
    except ValueError:
        return None


def typed(text: str, schema: object) -> Any:
    """The value that bare text stands for: JSON where the schema has such a type, otherwise the text as it is."""
    kinds = _kinds(schema)
    if kinds == {"string"}:
        return text
    try:
        value = read_json(text.strip())
    except ValueError:
        return text
    kind = KINDS[type(value)]
    fits = not kinds or kind in kinds or (kind == "integer" and "number" in kinds)
    return value if fits or "string" not in kinds else text


def _kinds(schema: object) -> set[str]:
    """The types that a JSON schema names; empty where it leaves them open."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    kinds = {kind for kind in (named if isinstance(named, list) else [named]) if isinstance(kind, str)}
    for choice in ("anyOf", "oneOf"):
        for option in _list(schema.get(choice)):
            kinds |= _kinds(option)
    return kinds or {KINDS.get(type(value), "object") for value in _list(schema.get("enum"))}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dump(values: Mapping[str, Any]) -> str:
    """Raises ValueError or TypeError for what JSON has no place for."""
    return replace_surrogates(json.dumps(values, ensure_ascii=False, allow_nan=False))
