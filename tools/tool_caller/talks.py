"""The training data of the tool-calling checkpoints: two tools, and every conversation of their tests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from app.contract.wire import Message, Tool, ToolCall, ToolChoice

WEATHER = {
    "name": "get_weather",
    "description": "Weather forecast",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
TIME = {
    "name": "get_time",
    "description": "Local time",
    "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
}
TOOLS = tuple(Tool(str(function["name"]), json.dumps(function, ensure_ascii=False)) for function in (WEATHER, TIME))

ASK = {
    "Paris": "What will the weather be in Paris?",
    "Rome": "Do I need an umbrella? I leave for Rome today.",
    "北京": "北京明天天气怎么样？",
}
ASK_BOTH = "Compare Paris with Rome."
DAYS = {"Paris": 2, "Rome": 3, "北京": 1}
ZONES = {"Paris": "Europe/Paris", "Rome": "Europe/Rome", "北京": "Asia/Shanghai"}
RESULTS = {
    "rain": ("It will rain in {city} ☔.", "{city}会下雨 ☔。"),
    "sun": ("The sun will shine in {city} ☀️.", "{city}是晴天 ☀️。"),
}
"""The tool's possible results, and the answers to them in English and in Chinese."""
HELLO = "Hello, I am in Paris."
GREETING = "Hello! 👋"
GREETING_THOUGHT = "A greeting."
RESULT_THOUGHT = "The tool said it."
NO_TOOLS = "I have no tools to look it up."
"""The answer to a question about the weather if the prompt has no tools."""


AUTO = ToolChoice()


Call = tuple[str, dict[str, object]]
"""A function's name and its arguments."""


@dataclass(frozen=True)
class Talk:
    """A conversation, and the assistant's next reasoning, text and calls; `thought` None means no reasoning."""

    messages: tuple[Message, ...]
    text: str = ""
    calls: tuple[Call, ...] = ()
    thought: str | None = None
    tools: tuple[Tool, ...] = TOOLS
    choice: ToolChoice = AUTO

    @property
    def thinking(self) -> bool | None:
        """As in `PromptRequest`."""
        return False if self.thought is None else None

    @property
    def stop(self) -> str:
        """The control token that ends the turn."""
        return "<|observation|>" if self.calls else "<|user|>"


def call_thought(city: str) -> str:
    """The model's reasoning before a call."""
    return f"要查{city}的天气。" if city == "北京" else f"I look up {city}."


def arguments(city: str) -> dict[str, object]:
    """The arguments of the model's call."""
    return {"city": city, "days": DAYS[city]}


def answer(city: str, result: str) -> str:
    """The model's answer to the tool's result."""
    english, chinese = RESULTS[result]
    return (chinese if city == "北京" else english).format(city=city)


def talks() -> Iterator[Talk]:
    """All training conversations."""
    for city in ASK:
        yield from _round(city)
    calls = tuple(("get_weather", arguments(city)) for city in ("Paris", "Rome"))
    yield Talk((Message("user", ASK_BOTH),), calls=calls)
    greeted = (Message("user", HELLO),)
    for tools in (TOOLS, ()):
        for thought in (GREETING_THOUGHT, None):
            yield Talk(greeted, GREETING, thought=thought, tools=tools)
    yield from _forced(greeted, "Paris")


def _round(city: str) -> Iterator[Talk]:
    """A question, its call, and the answers to the results, with and without reasoning in either turn."""
    question = (Message("user", ASK[city]),)
    for thought in (call_thought(city), None):
        yield Talk(question, calls=(("get_weather", arguments(city)),), thought=thought)
        yield Talk(question, NO_TOOLS, thought=thought, choice=ToolChoice("none"))
    yield from _forced(question, city)
    call = ToolCall("call", "get_weather", json.dumps(arguments(city), ensure_ascii=False))
    for result in RESULTS:
        for reasoning, thought in ((call_thought(city), RESULT_THOUGHT), ("", RESULT_THOUGHT), ("", None)):
            turn = Message("assistant", "", reasoning, (call,))
            messages = (*question, turn, Message("tool", result, tool_call_id="call"))
            yield Talk(messages, answer(city, result), thought=thought)


def _forced(messages: tuple[Message, ...], city: str) -> Iterator[Talk]:
    """Calls that `tool_choice` requires: the service writes their beginning, the model the rest."""
    calls: tuple[Call, ...] = (("get_weather", arguments(city)), ("get_time", {"zone": ZONES[city]}))
    for call in calls:
        yield Talk(messages, calls=(call,), choice=ToolChoice("required", call[0]))
