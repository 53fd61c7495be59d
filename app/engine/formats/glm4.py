"""GLM-4-9B-chat, GLM-4-0414 and Z1: each role is followed by a line of metadata, which names the tool of a call."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from app.contract.wire import Message
from app.engine.errors import RequestError
from app.engine.formats.base import AnswerParser, Prompt, PromptRequest
from app.engine.formats.parsing.answer_parser import THINK, THINK_END, TextParser, ThinkingParser, parser_of
from app.engine.formats.parsing.calls import json_arguments
from app.engine.formats.parsing.segments import SegmentParser
from app.engine.formats.safe_encoder import BREAK
from app.engine.formats.template import TemplateFormat
from app.engine.formats.tools import Function, read_arguments, read_tools, refuse_call, refuse_reasoning, split_partial
from app.engine.sampling import SamplingDefaults

INTRODUCTION = (
    "你是一个名为 GLM-4 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
INSTRUCTION = "在调用上述函数时，请使用 Json 格式表示调用的参数。"
"""As GLM-4-9B-chat's published code writes them before and after its tools."""
PROBE = {"role": "user", "content": "x"}


class Glm4Format(TemplateFormat):
    """Adds to the template what a tool call and its result look like, and where an answer ends."""

    defaults = SamplingDefaults(temperature=0.8, top_p=0.8)
    """Those of the published `chat` function."""
    format_stops = ("<|endoftext|>", "<|user|>", "<|observation|>")

    def prompt(self, request: PromptRequest) -> Prompt:
        functions = read_tools(request.shown_tools)
        before, partial = split_partial(request)
        messages = list(_turns(before))
        if functions and not self._shows_tools:
            messages.insert(0, {"role": "system", "content": tools_text(functions)})
        tools = [{"type": "function", "function": function.fields} for function in functions] or None
        ids = self._render(messages, tools)
        if partial is not None:
            refuse_call(partial, functions)
            return Prompt(self._continue(ids, messages, partial, tools))
        # Z1's prompt opens the reasoning, and there is no switch for it: a required call closes it.
        start = f"{THINK_END}\n" if self._opens_reasoning(ids) else ""
        required_prefixes = tuple(self._encoder.encode(f"{start}{name}\n") for name in request.forced_names)
        return Prompt(ids, required_prefixes)

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> AnswerParser:
        names = frozenset(tool.name for tool in request.shown_tools)
        inner: TextParser = SegmentParser(names, json_arguments)
        if THINK in self.template:
            inner = ThinkingParser(inner, self._opens_reasoning(prompt_ids))
        partial = split_partial(request)[1]
        return parser_of(self._detokeniser, inner, partial, prompt_ids, self._control.get("<|assistant|>"))

    def _continue(
        self,
        ids: tuple[int, ...],
        messages: list[dict[str, Any]],
        partial: Message,
        tools: list[dict[str, Any]] | None,
    ) -> tuple[int, ...]:
        """The prompt `ids` followed by the answer so far."""
        if not self._opens_reasoning(ids):
            refuse_reasoning(partial)
            return self._render_partial(messages, {"content": BREAK}, partial.content, tools)
        # Z1's template drops earlier reasoning, so it is written as the model writes it.
        reasoning, content = (self._encoder.mark(text) for text in (partial.reasoning, partial.content))
        line = "" if self._answer_start(ids).endswith("\n") else "\n"
        text = f"{line}{reasoning}" + (f"\n{THINK_END}\n\n{content}" if content else "")
        return (*ids, *self._encoder.encode(text))

    def _opens_reasoning(self, prompt_ids: Sequence[int]) -> bool:
        return self._answer_start(prompt_ids).rstrip().endswith(THINK)

    @functools.cached_property
    def _shows_tools(self) -> bool:
        """Whether the template renders tools: 0414's does; 9B-chat's takes them as part of a message.

        Found by rendering: the variable's name occurs in both.
        """
        try:
            with_tool = self._render([PROBE], [{"type": "function", "function": {"name": "probe"}}])
            return with_tool != self._render([PROBE])
        except RequestError:
            return False


def _turns(messages: tuple[Message, ...]) -> Iterator[dict[str, Any]]:
    for index, message in enumerate(messages):
        role = "observation" if message.role == "tool" else message.role
        if message.content or not message.tool_calls:
            yield {"role": role, "content": message.content}
        for call in message.tool_calls:
            arguments = json.dumps(read_arguments(call, index), ensure_ascii=False)
            yield {"role": role, "metadata": call.name, "content": arguments}


def tools_text(functions: Sequence[Function]) -> str:
    """The system turn that describes tools to GLM-4-9B-chat."""
    texts = (
        f"\n\n## {function.name}\n\n{json.dumps(function.fields, indent=4, ensure_ascii=False)}\n{INSTRUCTION}"
        for function in functions
    )
    return INTRODUCTION + "".join(texts)
