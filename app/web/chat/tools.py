"""The `tools` and `tool_choice` of a chat request, and what counts as a function's name and arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, NoReturn

from app.contract.limits import FUNCTION_NAME, MAX_FUNCTION_CHARACTERS, MAX_JSON_DEPTH, MOST_TOOLS
from app.contract.wire import Tool, ToolChoice
from app.web.http import fields
from app.web.http.errors import bad_field

MODES: tuple[Literal["none", "auto", "required"], ...] = ("none", "auto", "required")


def read_tools(value: Any) -> tuple[Tool, ...]:
    """Checks the list; each function goes to the model as the client wrote it, in the client's order of keys."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise fields.wrong_type("tools", "a list", value)
    if len(value) > MOST_TOOLS:
        raise bad_field("tools", f"holds {len(value)} tools; at most {MOST_TOOLS} are accepted")
    tools = tuple(_tool(f"tools[{n}]", item) for n, item in enumerate(value))
    seen: set[str] = set()
    for n, tool in enumerate(tools):
        if tool.name in seen:
            raise bad_field(f"tools[{n}].function.name", f"{tool.name} is the name of another tool already")
        seen.add(tool.name)
    return tools


def read_tool_choice(value: Any, tools: tuple[Tool, ...]) -> ToolChoice:
    """Checks that what must be called is there to be called."""
    if value is None:
        return ToolChoice()
    if isinstance(value, str):
        mode = next((mode for mode in MODES if mode == value), None)
        if mode is None:
            raise bad_field("tool_choice", f"should be one of {', '.join(MODES)}, or an object that names a function")
        if mode == "required" and not tools:
            raise bad_field("tool_choice", "required needs tools to choose from; tools is empty")
        return ToolChoice(mode)
    name = _chosen(value)
    if all(tool.name != name for tool in tools):
        raise bad_field("tool_choice.function.name", f"{name} is not among the tools")
    return ToolChoice("required", name)


def function_name(path: str, value: Any) -> str:
    """A name as OpenAI has it; nothing else may stand where a chat format puts names."""
    if not isinstance(value, str):
        raise fields.wrong_type(path, "a string", value)
    if not FUNCTION_NAME.fullmatch(value):
        raise bad_field(path, "should be 1 to 64 letters, digits, _ or -")
    return value


def arguments_text(path: str, value: Any) -> str:
    """A call's arguments: a JSON object as text. Chat formats write them out key by key, so it has to be one."""
    text = fields.text(path, value) or "{}"
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise bad_field(path, "should be a JSON object as text")
    _as_json(path, parsed)
    return text


def _tool(path: str, value: Any) -> Tool:
    if not isinstance(value, dict):
        raise fields.wrong_type(path, "an object", value)
    if value.get("type") != "function":
        raise bad_field(f"{path}.type", "should be function; other tools are not supported here")
    fields.check_names(f"{path}.", value, ("type", "function"))
    function = value.get("function")
    if not isinstance(function, dict):
        raise fields.wrong_type(f"{path}.function", "an object", function)
    fields.check_names(f"{path}.function.", function, ("name", "description", "parameters", "strict"))
    # `strict` asks for a guarantee that no model here can give; official clients set it unasked.
    fields.boolean(f"{path}.function.strict", function.get("strict"))
    name = function_name(f"{path}.function.name", function.get("name"))
    if function.get("description") is not None:
        fields.text(f"{path}.function.description", function["description"])
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise fields.wrong_type(f"{path}.function.parameters", "an object", parameters)
    shown = {key: item for key, item in function.items() if key != "strict" and item is not None}
    return Tool(name, _as_json(f"{path}.function", shown))


def _as_json(path: str, value: dict[str, Any]) -> str:
    """The value as JSON text, when it is of bearable depth and size and valid Unicode throughout."""
    if _deeper_than(MAX_JSON_DEPTH, value):
        raise bad_field(path, f"is nested more than {MAX_JSON_DEPTH} deep")
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_FUNCTION_CHARACTERS:
        raise bad_field(path, f"is {len(text)} characters long as JSON; at most {MAX_FUNCTION_CHARACTERS} are accepted")
    return fields.text(path, text)


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit + 1):
        if not level:
            return False
        level = [item for parent in level for item in _children(parent)]
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _chosen(value: Any) -> str:
    if not isinstance(value, dict):
        raise fields.wrong_type("tool_choice", "a string or an object", value)
    if value.get("type") != "function":
        raise bad_field("tool_choice.type", "should be function; other choices are not supported here")
    fields.check_names("tool_choice.", value, ("type", "function"))
    function = value.get("function")
    if not isinstance(function, dict):
        raise fields.wrong_type("tool_choice.function", "an object", function)
    fields.check_names("tool_choice.function.", function, ("name",))
    return function_name("tool_choice.function.name", function.get("name"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
