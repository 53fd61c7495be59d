"""Parses the arguments of a tool call, in the forms that GLM generations write, to a JSON object."""

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
"""From a tool's name and a call's body to the arguments as JSON text; None if the body is not a call."""

FENCE, FENCE_END = re.compile(r"```(?:python|py)?[ \t]*+\n"), "```"
ARGUMENT = re.compile(
    r"\s*+<arg_key>([^<]*)</arg_key>\s*+(?:<arg_value>(.*?)|((?:(?!<arg_).)*?))</arg_value>", re.DOTALL
)
"""Under load, 4.7 was seen to leave `<arg_value>` out and to write all else (vLLM's issue 49248)."""
JSON_TYPES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
"""JSON schema's names of the types that `json.loads` returns."""


def read_json(text: str) -> Any:
    """Parses JSON that a model or a client wrote. Raises ValueError, for NaN and for too deep nesting as well."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def as_object(text: str) -> dict[str, Any] | None:
    """A JSON object; None if the text is not one."""
    try:
        value = read_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_arguments(_name: str, body: str) -> str | None:
    """GLM-4's form: the body is the object, and stays as it was written."""
    return body.strip() if as_object(body) is not None else None


def python_arguments(name: str, body: str) -> str | None:
    """ChatGLM3's form: a Python call with literals as keywords, `tool_call(city='北京')`, usually in a code block.

    It is parsed as syntax and never run. With anything but literals it is not a call.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the call, such as "\d"
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
    for argument in call.keywords:
        value = ast.literal_eval(argument.value)
        # `**{...}` holds names that are not Python names; `python_call` writes them in this form.
        values |= value if argument.arg is None else {argument.arg: value}
    return values


def python_call(arguments: Mapping[str, Any]) -> str:
    """The reverse: the block in which ChatGLM3 calls with these arguments."""
    plain = {key: value for key, value in arguments.items() if _is_python_name(key)}
    parts = [f"{key}={value!r}" for key, value in plain.items()]
    if others := {key: value for key, value in arguments.items() if key not in plain}:
        parts.append(f"**{others!r}")
    return f"```python\ntool_call({', '.join(parts)})\n```"


def _is_python_name(key: str) -> bool:
    # Python reads names in their normalised form only.
    return key.isidentifier() and not keyword.iskeyword(key) and unicodedata.normalize("NFKC", key) == key


def tagged_arguments(properties: Mapping[str, Any], body: str) -> str | None:
    """GLM-4.5's form: pairs of `<arg_key>` and `<arg_value>`, with or without newlines between them.

    A value is bare text; the tool's schema, `properties`, says which type it has.
    """
    values: dict[str, Any] = {}
    position = 0
    while match := ARGUMENT.match(body, position):
        key = match.group(1).strip()
        value = match.group(2) if match.group(3) is None else match.group(3)
        values[key] = typed(value, properties.get(key))
        position = match.end()
    if body[position:].strip():
        return None
    try:
        return _dump(values)
    except ValueError:
        return None


def typed(text: str, schema: object) -> Any:
    """The value of bare text: parsed as JSON if the schema allows its type, otherwise the text itself."""
    types = _schema_types(schema)
    if types == {"string"}:
        return text
    try:
        value = read_json(text.strip())
    except ValueError:
        return text
    kind = JSON_TYPES[type(value)]
    allowed = not types or kind in types or (kind == "integer" and "number" in types)
    return value if allowed or "string" not in types else text


def _schema_types(schema: object) -> set[str]:
    """The types that a JSON schema names; empty if it leaves them open."""
    if not isinstance(schema, dict):
        return set()
    names = schema.get("type")
    types = {name for name in (names if isinstance(names, list) else [names]) if isinstance(name, str)}
    for choice in ("anyOf", "oneOf"):
        for option in _list(schema.get(choice)):
            types |= _schema_types(option)
    return types or {JSON_TYPES.get(type(value), "object") for value in _list(schema.get("enum"))}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dump(values: Mapping[str, Any]) -> str:
    """Raises ValueError or TypeError for values that JSON can't express."""
    return replace_surrogates(json.dumps(values, ensure_ascii=False, allow_nan=False))
