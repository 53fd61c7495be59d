"""Calls' arguments, as each format writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.formats.parsing.calls import json_arguments, python_arguments, python_call, tagged_arguments, typed
from app.engine.formats.tools import read_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.dictionaries(TEXT | st.sampled_from(["city", "class", "a b", "x-y"]), VALUES, max_size=4)


@given(ARGUMENTS)
def test_what_chatglm3_is_shown_of_a_call_reads_back(arguments: dict[str, Any]) -> None:
    read = python_arguments("get_weather", python_call(arguments))
    assert read is not None
    assert json.loads(read) == arguments


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        (" ```python\ntool_call(city='北京', n=2)\n```", {"city": "北京", "n": 2}),
        ('tool_call(city="it\'s\\n\\"ok\\"")', {"city": 'it\'s\n"ok"'}),
        ("```\nget_weather(ok=True, none=None, minus=-1.5, many=[1, {'a': 2}])\n```", None),
        ("tool_call()", {}),
        ("tool_call(pattern='\\d+')", {"pattern": "\\d+"}),
    ],
)
def test_python_calls(body: str, arguments: dict[str, Any] | None) -> None:
    expected = {"ok": True, "none": None, "minus": -1.5, "many": [1, {"a": 2}]} if arguments is None else arguments
    read = python_arguments("get_weather", body)
    assert read is not None
    assert json.loads(read) == expected


@pytest.mark.parametrize(
    "body",
    [
        "",
        "tool_call('北京')",
        "tool_call(city=__import__('os').getcwd())",
        "tool_call(city=[x for x in 'ab'])",
        "other(city='x')",
        "os.remove(path='x')",
        "tool_call(city='x'); print(1)",
        "tool_call(city='x')\n\ntool_call(city='y')",
        "tool_call(city={1, 2})",
        "tool_call(city=b'x')",
        "tool_call(city=1e999)",
        "tool_call(**7)",
        "tool_call(city='x'",
        "tool_call(city='\0')",
        "tool_call(x=" + "[" * 5000 + "]" * 5000 + ")",
        "tool_call(x=" + "-" * 20000 + "1)",
        "tool_call(x=" + "9" * 6000 + ")",
    ],
)
def test_what_is_no_call_of_literals_is_none(body: str) -> None:
    assert python_arguments("get_weather", body) is None


def test_json_stays_as_it_was_written() -> None:
    assert json_arguments("f", ' {"a":  "\\u5317"}\n') == '{"a":  "\\u5317"}'
    for bad in ("", "[]", '"x"', "{", "{'a': 1}", '{"a": NaN}', '{"a": 1} x', "[" * 100_000):
        assert json_arguments("f", bad) is None


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "string"}, "5"),
        (" 5\n", {"type": "string"}, " 5\n"),
        ('"quoted"', {"type": "string"}, '"quoted"'),
        ("5", {"type": "integer"}, 5),
        ("5", {"type": "number"}, 5),
        ("true", {"type": "boolean"}, True),
        ("\n[1, 2]\n", {"type": "array"}, [1, 2]),
        ('{"a": "北"}', {"type": "object"}, {"a": "北"}),
        ("null", {"type": ["string", "null"]}, None),
        ("5", {"type": ["string", "null"]}, "5"),
        ("5", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, 5),
        ("5", {"enum": ["5", "6"]}, "5"),
        ("5", {"enum": [5, 6]}, 5),
        ("five", {"type": "integer"}, "five"),
        ("Infinity", {"type": "number"}, "Infinity"),
        ("5", None, 5),
        ("five", None, "five"),
        ("5", {"$ref": "#/x"}, 5),
    ],
)
def test_bare_text_has_the_type_that_the_schema_says(text: str, schema: object, value: Any) -> None:
    read = typed(text, schema)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("end", ["", "\n"])
@given(values=st.dictionaries(st.sampled_from(["a", "b", "c"]), TEXT.filter(lambda text: "<" not in text)))
def test_pairs_of_tags_with_and_without_line_ends(end: str, values: dict[str, str]) -> None:
    body = end + "".join(
        f"<arg_key>{key}</arg_key>{end}<arg_value>{value}</arg_value>{end}" for key, value in values.items()
    )
    read = tagged_arguments({key: {"type": "string"} for key in values}, body)
    assert read is not None
    assert json.loads(read) == values


@pytest.mark.parametrize(
    "body",
    [
        "<arg_key>a</arg_key>",
        "<arg_key>a</arg_key><arg_value>1",
        "<arg_key>a</arg_key><arg_key>b</arg_key><arg_value>1</arg_value>",
        "<arg_key>a</arg_key><arg_value>1</arg_value> and so on",
        "<arg_value>1</arg_value>",
        "<arg_key>a</arg_key><arg_value>1e999</arg_value>",
    ],
)
def test_broken_pairs_are_none(body: str) -> None:
    assert tagged_arguments({}, body) is None


def test_json_that_is_too_deep_or_none_is_a_value_error() -> None:
    for bad in ("[" * 100_000, "NaN", "-Infinity", ""):
        with pytest.raises(ValueError, match=r".+"):
            read_json(bad)


def test_long_runs_of_white_space_are_read_in_one_go() -> None:
    """Searched again from each place of theirs, they would take minutes, the engine standing still meanwhile."""
    space = " " * 500_000
    assert python_arguments("f", f"```python\n{space}x") is None
    assert python_arguments("f", f"```python\ntool_call(a=1){space}```{space}") == '{"a": 1}'
    assert tagged_arguments({}, f"<arg_key>a</arg_key>{space}x") is None
    assert tagged_arguments({}, f"<arg_key>a</arg_key>{space}<arg_value>1</arg_value>{space}") == '{"a": 1}'
