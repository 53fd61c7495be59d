"""GLM-4.5, 4.6, 4.7 and 4.7-Flash: reasoning in `<think>`, calls in `<tool_call>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.contract.wire import Message
from app.engine.formats.base import AnswerParser, Prompt, PromptRequest
from app.engine.formats.parsing.answer_parser import THINK, THINK_END, ThinkingParser, parser_of
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.tagged import CALL, CALL_END, KEY, KEY_END, VALUE, VALUE_END, TaggedParser
from app.engine.formats.safe_encoder import BREAK
from app.engine.formats.template import TemplateFormat
from app.engine.formats.tools import Function, inside_call, read_arguments, read_tools, split_partial
from app.engine.sampling import SamplingDefaults

TAGS = (THINK, THINK_END, CALL, CALL_END, KEY, KEY_END, VALUE, VALUE_END)
"""Tokens that the parser has to see, whether the tokenizer calls them special or not."""


class Glm45Format(TemplateFormat):
    """The template renders tools, calls, results and reasoning; here are the answer's end and its parser.

    A required call (`tool_choice` required or named) comes without reasoning: the template is asked for none, and if
    the prompt still opens it, it is closed at once.
    """

    defaults = SamplingDefaults(temperature=1.0, top_p=0.95)
    """As the models' documentation recommends for 4.6 and 4.7."""
    format_stops = ("<|endoftext|>", "<|user|>", "<|observation|>")

    def prompt(self, request: PromptRequest) -> Prompt:
        functions = read_tools(request.shown_tools)
        before, partial = split_partial(request)
        messages = [_turn(index, message) for index, message in enumerate(before)]
        tools = [{"type": "function", "function": function.fields} for function in functions] or None
        forced = [function for function in functions if function.name in request.forced_names]
        thinking = False if forced else request.thinking
        switches = {} if thinking is None else {"enable_thinking": thinking}
        if partial is not None:
            if functions and CALL in partial.content.rpartition(CALL_END)[2]:
                raise inside_call()
            # With content, the reasoning is passed even when empty, as in `_turn`.
            reasoning = self._encoder.mark(partial.reasoning) if partial.content else BREAK
            turn = {"content": BREAK if partial.content else "", "reasoning_content": reasoning}
            text = partial.content or partial.reasoning
            return Prompt(self._render_partial(messages, turn, text, tools, **switches))
        ids = self._render(messages, tools, **switches)
        start = THINK_END if self._opens_reasoning(ids) else ""
        # 4.5 and 4.6 write newlines between the tags, 4.7 and Flash none; templates spell them as escapes.
        newlines = f"\\n{CALL}" in self.template
        required_prefixes = tuple(
            self._encoder.encode(start + text) for tool in forced for text in _call_starts(tool, newlines)
        )
        return Prompt(ids, required_prefixes)

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> AnswerParser:
        functions = read_tools(request.shown_tools)
        calls = TaggedParser({function.name: function.properties for function in functions})
        inner = ThinkingParser(calls, self._opens_reasoning(prompt_ids))
        return parser_of(self._detokeniser, inner, split_partial(request)[1], prompt_ids)

    def _detokeniser(self) -> IncrementalDetokeniser:
        hidden = {number for content, number in self._control.items() if content not in TAGS}
        return IncrementalDetokeniser(lambda ids: self.decode([token for token in ids if token not in hidden]))

    def _opens_reasoning(self, prompt_ids: Sequence[int]) -> bool:
        return self._answer_start(prompt_ids).rstrip().endswith(THINK)


def _turn(index: int, message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        # Passed even when empty: otherwise templates look for reasoning in the content.
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": read_arguments(call, index)}}
            for call in message.tool_calls
        ]
    return turn


def _call_starts(tool: Function, newlines: bool) -> tuple[str, ...]:
    """How a call of this tool may begin, up to where its name has certainly ended."""
    if newlines:
        return (f"\n{CALL}{tool.name}\n",)
    start = f"{CALL}{tool.name}"
    return (start + KEY, start + CALL_END) if tool.may_be_empty else (start + KEY,)
