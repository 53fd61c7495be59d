"""GLM-4-9B-chat, GLM-4-0414 and Z1: roles with a line of metadata, which names a called tool."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from app.contract.wire import Message
from app.engine.errors import RequestError
from app.engine.formats.base import Conversation, Parser, Prompt
from app.engine.formats.parsing.answer_parser import THINK, THOUGHT, TextParser, ThinkingParser, parser_of
from app.engine.formats.parsing.calls import json_arguments
from app.engine.formats.parsing.segments import SegmentParser
from app.engine.formats.safe_encoder import BREAK
from app.engine.formats.template import TemplateFormat
from app.engine.formats.tools import Function, read_arguments, read_tools, refuse_call, refuse_thoughts, split_begun
from app.engine.sampling import SamplingDefaults

INTRODUCTION = (
    "你是一个名为 GLM-4 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
INSTRUCTION = "在调用上述函数时，请使用 Json 格式表示调用的参数。"
"""Both as GLM-4-9B-chat's published code writes them before and behind its tools."""
PROBE = {"role": "user", "content": "x"}


class Glm4Format(TemplateFormat):
    """The template says all but this: what a tool call and its result look like, and where an answer ends."""

    defaults = SamplingDefaults(temperature=0.8, top_p=0.8)
    """Of the published `chat` function."""
    own_stops = ("<|endoftext|>", "<|user|>", "<|observation|>")

    def prompt(self, conversation: Conversation) -> Prompt:
        """See `ChatFormat.prompt`."""
        functions = read_tools(conversation.shown_tools)
        before, begun = split_begun(conversation)
        messages = list(_turns(before))
        if functions and not self._shows_tools:
            messages.insert(0, {"role": "system", "content": tools_text(functions)})
        tools = [{"type": "function", "function": function.fields} for function in functions] or None
        ids = self._render(messages, tools)
        if begun is not None:
            refuse_call(begun, functions)
            return Prompt(self._begun(ids, messages, begun, tools))
        # Z1's prompt ends in thoughts, and it has no switch for them: a call that has to come ends them.
        start = f"{THOUGHT}\n" if self._thinking(ids) else ""
        openings = tuple(self._encoder.encode(f"{start}{name}\n") for name in conversation.forced_names)
        return Prompt(ids, openings)

    def parser(self, conversation: Conversation, prompt_ids: Sequence[int]) -> Parser:
        """See `ChatFormat.parser`."""
        names = frozenset(tool.name for tool in conversation.shown_tools)
        inner: TextParser = SegmentParser(names, json_arguments)
        if THINK in self.template:
            inner = ThinkingParser(inner, self._thinking(prompt_ids))
        begun = split_begun(conversation)[1]
        return parser_of(self._detokeniser, inner, begun, prompt_ids, self._control.get("<|assistant|>"))

    def _begun(
        self,
        ids: tuple[int, ...],
        messages: list[dict[str, Any]],
        begun: Message,
        tools: list[dict[str, Any]] | None,
    ) -> tuple[int, ...]:
        """The prompt `ids` with the answer so far behind them."""
        if not self._thinking(ids):
            refuse_thoughts(begun)
            return self._render_begun(messages, {"content": BREAK}, begun.content, tools)
        # Z1's template shows no thoughts of the past: they stand as the model writes them.
        thought, content = (self._encoder.mark(text) for text in (begun.reasoning, begun.content))
        line = "" if self._answer_start(ids).endswith("\n") else "\n"
        text = f"{line}{thought}" + (f"\n{THOUGHT}\n\n{content}" if content else "")
        return (*ids, *self._encoder.encode(text))

    def _thinking(self, prompt_ids: Sequence[int]) -> bool:
        return self._answer_start(prompt_ids).rstrip().endswith(THINK)

    @functools.cached_property
    def _shows_tools(self) -> bool:
        """Whether the template has a place for tools: 0414's has; 9B-chat's takes them as part of a message.

        Asked of the template itself: the variable's name stands in both.
        """
        try:
            with_tool = self._render([PROBE], [{"type": "function", "function": {"name": "probe"}}])
            return with_tool != self._render([PROBE])
        except RequestError:
            return False


def _turns(messages: tuple[Message, ...]) -> Iterator[dict[str, Any]]:
    for place, message in enumerate(messages):
        role = "observation" if message.role == "tool" else message.role
        if message.content or not message.tool_calls:
            yield {"role": role, "content": message.content}
        for call in message.tool_calls:
            arguments = json.dumps(read_arguments(call, place), ensure_ascii=False)
            yield {"role": role, "metadata": call.name, "content": arguments}


def tools_text(functions: Sequence[Function]) -> str:
    """The system turn that shows tools to GLM-4-9B-chat."""
    shown = (
        f"\n\n## {function.name}\n\n{json.dumps(function.fields, indent=4, ensure_ascii=False)}\n{INSTRUCTION}"
        for function in functions
    )
    return INTRODUCTION + "".join(shown)
