"""The tools and tool calls of a request, checked, in the form that the chat formats need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contract.limits import FUNCTION_NAME, MAX_TOOLS_BYTES, MOST_TOOLS
from app.contract.wire import Failed, Message, Tool, ToolCall
from app.engine.errors import RequestError
from app.engine.formats.base import PromptRequest
from app.engine.formats.parsing.calls import read_json
from app.engine.formats.parsing.text import replace_surrogates


@dataclass(frozen=True)
class Function:
    """A tool that was checked."""

    name: str
    fields: Mapping[str, Any]
    """OpenAI's function object, without lone surrogates."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """The schemas of its parameters by name; empty if it has none."""
        parameters = self.fields.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        return properties if isinstance(properties, dict) else {}

    @property
    def may_be_empty(self) -> bool:
        """Whether its schema allows a call without arguments."""
        parameters = self.fields.get("parameters")
        return not (isinstance(parameters, dict) and parameters.get("required"))


def read_tools(tools: tuple[Tool, ...]) -> tuple[Function, ...]:
    """The tools of a request. Raises RequestError that names the tool, or what is too much."""
    if len(tools) > MOST_TOOLS:
        raise refusal(f"the request has {len(tools)} tools; at most {MOST_TOOLS} are allowed", "tools")
    size = sum(len(tool.function) for tool in tools)
    if size > MAX_TOOLS_BYTES:
        raise refusal(f"the tools' definitions are {size} bytes long; at most {MAX_TOOLS_BYTES} are allowed", "tools")
    functions = tuple(_read_tool(index, tool) for index, tool in enumerate(tools))
    names = [function.name for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise refusal(f"two tools are called {name!r}; a call by that name would be ambiguous", "tools")
    return functions


def _read_tool(index: int, tool: Tool) -> Function:
    where = f"tools[{index}].function"
    if not FUNCTION_NAME.fullmatch(tool.name):
        text = f"{where}.name is {tool.name[:80]!r}; it must have 1 to 64 letters, digits, underscores and dashes"
        raise refusal(text, "tools")
    fields = _read_object(tool.function, where, "tools")
    if fields.get("name") != tool.name:
        raise refusal(f"{where}: its name is {str(fields.get('name'))[:80]!r} here and {tool.name!r} there", "tools")
    return Function(tool.name, fields)


def read_arguments(call: ToolCall, index: int) -> dict[str, Any]:
    """The arguments of a call in an earlier assistant turn, `messages[index]`. Raises RequestError."""
    where = f"messages[{index}].tool_calls"
    if not FUNCTION_NAME.fullmatch(call.name):
        raise refusal(f"{where}: {call.name[:80]!r} is not a valid tool name", "messages")
    return _read_object(call.arguments or "{}", f"{where}: the arguments of {call.name}", "messages")


def _read_object(text: str, where: str, param: str) -> dict[str, Any]:
    try:
        fields = read_json(text)
        if isinstance(fields, dict):
            # Lone surrogates can hide in JSON's escapes, at any depth and in keys.
            clean: dict[str, Any] = json.loads(
                replace_surrogates(json.dumps(fields, ensure_ascii=False, allow_nan=False))
            )
            return clean
    except (ValueError, RecursionError) as error:
        raise refusal(f"{where} cannot be read as JSON: {error}", param) from error
    raise refusal(f"{where} must be a JSON object", param)


def clean_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages without lone surrogates. Raises RequestError for an unknown role."""
    for index, message in enumerate(messages):
        # Some templates join a role's name into a control token.
        if message.role not in ("system", "user", "assistant", "tool"):
            raise refusal(f"messages[{index}] has the unknown role {message.role!r}", "messages")
    return tuple(
        Message(
            message.role,
            replace_surrogates(message.content),
            replace_surrogates(message.reasoning),
            message.tool_calls,
        )
        for message in messages
    )


def split_partial(request: PromptRequest) -> tuple[tuple[Message, ...], Message | None]:
    """The clean messages, and separately the interrupted answer that is to be continued.

    The answer is None if the request continues none, or if it is empty. Raises RequestError.
    """
    messages = clean_messages(request.messages)
    if not request.continues:
        return messages, None
    if not messages or messages[-1].role != "assistant":
        raise refusal("only an assistant's answer can be continued: the last message has to be one", "messages")
    *before, partial = messages
    if partial.tool_calls:
        raise refusal("an answer that called tools is complete: its results come next", "messages", "unsupported_value")
    if request.forced_names:
        raise refusal("a call can be required only where an answer begins, not where one continues", "tool_choice")
    return tuple(before), partial if partial.content or partial.reasoning else None


def refuse_reasoning(partial: Message | None) -> None:
    """For formats without reasoning: raises RequestError if an answer was interrupted inside it."""
    if partial is not None and not partial.content:
        text = "the answer was interrupted inside its reasoning, and this model's chat format has none"
        raise refusal(text, "messages", "unsupported_value")


def refuse_call(partial: Message | None, functions: Sequence[Function]) -> None:
    """For formats whose calls begin with the tool's name on a line: raises RequestError inside such a call."""
    names = {function.name for function in functions}
    if partial is not None and any(line.strip() in names for line in partial.content.splitlines()):
        raise inside_call()


def inside_call() -> RequestError:
    """The error for an answer that was interrupted inside a call, whose control tokens are lost."""
    text = "the answer was interrupted inside a tool call and can't be continued; ask again"
    return refusal(text, "messages", "unsupported_value")


def refusal(text: str, param: str, code: str = "invalid_value") -> RequestError:
    """A 400 that names the field."""
    return RequestError(Failed(400, code, text, param=param))
