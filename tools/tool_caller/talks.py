"""What the tool-calling checkpoints know: two tools, and every conversation that their tests lead."""

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
"""What the tool may say, and the answers to it, in English and in Chinese."""
HELLO = "Hello, I am in Paris."
GREETING = "Hello! 👋"
GREETING_THOUGHT = "A greeting."
RESULT_THOUGHT = "The tool said it."
NO_TOOLS = "I have no tools to look it up."
"""The answer to a question about the weather where no tool is shown."""


AUTO = ToolChoice()


Call = tuple[str, dict[str, object]]
"""A function's name and its arguments."""


@dataclass(frozen=True)
class Talk:
    """One thing to learn: what the assistant thinks, says and calls next; no thought where it must not think."""

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
    """What the model thinks before it calls."""
    return f"要查{city}的天气。" if city == "北京" else f"I look up {city}."


def arguments(city: str) -> dict[str, object]:
    """What the model asks the weather for."""
    return {"city": city, "days": DAYS[city]}


def answer(city: str, result: str) -> str:
    """What the model says to the tool's result."""
    english, chinese = RESULTS[result]
    return (chinese if city == "北京" else english).format(city=city)


def talks() -> Iterator[Talk]:
    """All of them."""
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
    """A question, its call, and the answers to the results, with thoughts and without, sent back and not."""
    asked = (Message("user", ASK[city]),)
    for thought in (call_thought(city), None):
        yield Talk(asked, calls=(("get_weather", arguments(city)),), thought=thought)
        yield Talk(asked, NO_TOOLS, thought=thought, choice=ToolChoice("none"))
    yield from _forced(asked, city)
    call = ToolCall("call", "get_weather", json.dumps(arguments(city), ensure_ascii=False))
    for result in RESULTS:
        for reasoning, thought in ((call_thought(city), RESULT_THOUGHT), ("", RESULT_THOUGHT), ("", None)):
            turn = Message("assistant", "", reasoning, (call,))
            messages = (*asked, turn, Message("tool", result, tool_call_id="call"))
            yield Talk(messages, answer(city, result), thought=thought)


def _forced(asked: tuple[Message, ...], city: str) -> Iterator[Talk]:
    """Calls that `tool_choice` demands: how they begin is the service's, how they go on the model's."""
    calls: tuple[Call, ...] = (("get_weather", arguments(city)), ("get_time", {"zone": ZONES[city]}))
    for call in calls:
        yield Talk(asked, calls=(call,), choice=ToolChoice("required", call[0]))
