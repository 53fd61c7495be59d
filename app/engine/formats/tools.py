"""Tools and calls as a request brings them: checked once, then what the formats need of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contract.wire import Failed, Message, Tool, ToolCall
from app.engine.errors import RequestError
from app.engine.formats.base import Conversation
from app.engine.formats.parsing.calls import read_json
from app.engine.formats.parsing.text import replace_surrogates

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
"""OpenAI's rule; no control token and no tag can be written so."""
MOST_TOOLS = 128
MOST_BYTES = 256 * 1024


@dataclass(frozen=True)
class Function:
    """A tool that is fit to be shown."""

    name: str
    fields: Mapping[str, Any]
    """OpenAI's function object, without lone surrogates."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """The schemas of its parameters by their names; empty where it says none."""
        parameters = self.fields.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        return properties if isinstance(properties, dict) else {}

    @property
    def may_be_empty(self) -> bool:
        """Whether a call without arguments is one that its schema allows."""
        parameters = self.fields.get("parameters")
        return not (isinstance(parameters, dict) and parameters.get("required"))


def read_tools(tools: tuple[Tool, ...]) -> tuple[Function, ...]:
    """Raises RequestError naming the tool, or what is too much."""
    if len(tools) > MOST_TOOLS:
        raise refusal(f"{len(tools)} tools are given; {MOST_TOOLS} are the most", "tools")
    size = sum(len(tool.function) for tool in tools)
    if size > MOST_BYTES:
        raise refusal(f"the tools' definitions are {size} bytes long; {MOST_BYTES} are the most", "tools")
    functions = tuple(_read_tool(place, tool) for place, tool in enumerate(tools))
    names = [function.name for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise refusal(f"two tools are called {name!r}; a call of that name would mean both", "tools")
    return functions


def _read_tool(place: int, tool: Tool) -> Function:
    where = f"tools[{place}].function"
    if not NAME.fullmatch(tool.name):
        text = f"{where}.name is {tool.name[:80]!r}; 1 to 64 letters, digits, underscores and dashes are needed"
        raise refusal(text, "tools")
    fields = _read_object(tool.function, where, "tools")
    if fields.get("name") != tool.name:
        raise refusal(f"{where}: its name is {str(fields.get('name'))[:80]!r} here and {tool.name!r} there", "tools")
    return Function(tool.name, fields)


def read_arguments(call: ToolCall, place: int) -> dict[str, Any]:
    """The arguments of a call that an earlier assistant turn, `messages[place]`, made. Raises RequestError."""
    where = f"messages[{place}].tool_calls"
    if not NAME.fullmatch(call.name):
        raise refusal(f"{where}: {call.name[:80]!r} is no tool's name", "messages")
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
    raise refusal(f"{where} should be a JSON object", param)


def clean_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Without lone surrogates, and with roles that are known. Raises RequestError."""
    for place, message in enumerate(messages):
        # Some templates join a role's name into a control token.
        if message.role not in ("system", "user", "assistant", "tool"):
            raise refusal(f"messages[{place}] has no role that the format knows: {message.role!r}", "messages")
    return tuple(
        Message(
            message.role,
            replace_surrogates(message.content),
            replace_surrogates(message.reasoning),
            message.tool_calls,
        )
        for message in messages
    )


def split_begun(conversation: Conversation) -> tuple[tuple[Message, ...], Message | None]:
    """The messages, clean, and apart from them the broken-off answer that is to go on.

    None where there is none, or nothing of it yet. Raises RequestError.
    """
    messages = clean_messages(conversation.messages)
    if not conversation.continues:
        return messages, None
    if not messages or messages[-1].role != "assistant":
        raise refusal("only an assistant's answer can go on: the last message has to be one", "messages")
    *before, begun = messages
    if begun.tool_calls:
        raise refusal("an answer that called tools is complete: its results come next", "messages", "unsupported_value")
    if conversation.forced_names:
        raise refusal("a call can only be asked for where the answer begins, not where one goes on", "tool_choice")
    return tuple(before), begun if begun.content or begun.reasoning else None


def refuse_thoughts(begun: Message | None) -> None:
    """For formats without thoughts. Raises RequestError where an answer was broken off inside some."""
    if begun is not None and not begun.content:
        text = "the answer was broken off inside thoughts, and this model's chat format has none"
        raise refusal(text, "messages", "unsupported_value")


def refuse_call(begun: Message | None, functions: Sequence[Function]) -> None:
    """For formats whose calls begin with the tool's name on a line. Raises RequestError inside such a one."""
    names = {function.name for function in functions}
    if begun is not None and any(line.strip() in names for line in begun.content.splitlines()):
        raise inside_call()


def inside_call() -> RequestError:
    """The text of a call that was broken off is text; its control tokens are lost."""
    text = "the answer was broken off inside a tool call, which can't go on; ask for it anew"
    return refusal(text, "messages", "unsupported_value")


def refusal(text: str, param: str, code: str = "invalid_value") -> RequestError:
    """A 400 that names the field."""
    return RequestError(Failed(400, code, text, param=param))
