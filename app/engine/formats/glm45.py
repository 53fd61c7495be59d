"""GLM-4.5, 4.6, 4.7 and 4.7-Flash: thoughts in `<think>`, calls in `<tool_call>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.contract.wire import Message
from app.engine.formats.base import Conversation, Parser, Prompt
from app.engine.formats.parsing.answer_parser import THINK, THOUGHT, ThinkingParser, parser_of
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.tagged import CALL, CALL_END, KEY, KEY_END, VALUE, VALUE_END, TaggedParser
from app.engine.formats.safe_encoder import BREAK
from app.engine.formats.template import TemplateFormat
from app.engine.formats.tools import Function, inside_call, read_arguments, read_tools, split_begun
from app.engine.sampling import SamplingDefaults

TAGS = (THINK, THOUGHT, CALL, CALL_END, KEY, KEY_END, VALUE, VALUE_END)
"""Tokens of their own that the parser has to see, whether the tokenizer calls them special or not."""


class Glm45Format(TemplateFormat):
    """The template shows tools, calls, results and thoughts; here are the answer's end and how to read it.

    A call that has to come (`tool_choice` required or named) comes without thinking: the template is asked for none,
    and thoughts that the prompt still opens are closed at once.
    """

    defaults = SamplingDefaults(temperature=1.0, top_p=0.95)
    """As the models' documentation recommends for 4.6 and 4.7."""
    own_stops = ("<|endoftext|>", "<|user|>", "<|observation|>")

    def prompt(self, conversation: Conversation) -> Prompt:
        """See `ChatFormat.prompt`."""
        functions = read_tools(conversation.shown_tools)
        before, begun = split_begun(conversation)
        messages = [_turn(place, message) for place, message in enumerate(before)]
        tools = [{"type": "function", "function": function.fields} for function in functions] or None
        forced = [function for function in functions if function.name in conversation.forced_names]
        thinking = False if forced else conversation.thinking
        switches = {} if thinking is None else {"enable_thinking": thinking}
        if begun is not None:
            if functions and CALL in begun.content.rpartition(CALL_END)[2]:
                raise inside_call()
            # Beside content, thoughts are given even when empty, as in `_turn`.
            thought = self._encoder.mark(begun.reasoning) if begun.content else BREAK
            turn = {"content": BREAK if begun.content else "", "reasoning_content": thought}
            return Prompt(self._render_begun(messages, turn, begun.content or begun.reasoning, tools, **switches))
        ids = self._render(messages, tools, **switches)
        start = THOUGHT if self._thinking(ids) else ""
        # 4.5 and 4.6 write line ends between the tags, 4.7 and Flash none; templates spell them as escapes.
        lines = f"\\n{CALL}" in self.template
        openings = tuple(self._encoder.encode(start + text) for tool in forced for text in _openings(tool, lines))
        return Prompt(ids, openings)

    def parser(self, conversation: Conversation, prompt_ids: Sequence[int]) -> Parser:
        """See `ChatFormat.parser`."""
        functions = read_tools(conversation.shown_tools)
        calls = TaggedParser({function.name: function.properties for function in functions})
        inner = ThinkingParser(calls, self._thinking(prompt_ids))
        return parser_of(self._detokeniser, inner, split_begun(conversation)[1], prompt_ids)

    def _detokeniser(self) -> IncrementalDetokeniser:
        hidden = {number for content, number in self._control.items() if content not in TAGS}
        return IncrementalDetokeniser(lambda ids: self.decode([token for token in ids if token not in hidden]))

    def _thinking(self, prompt_ids: Sequence[int]) -> bool:
        return self._answer_start(prompt_ids).rstrip().endswith(THINK)


def _turn(place: int, message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        # Given even when empty: templates otherwise look for thoughts in the content.
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": read_arguments(call, place)}}
            for call in message.tool_calls
        ]
    return turn


def _openings(tool: Function, lines: bool) -> tuple[str, ...]:
    """How a call of this tool begins, up to where its name has certainly ended."""
    if lines:
        return (f"\n{CALL}{tool.name}\n",)
    begin = f"{CALL}{tool.name}"
    return (begin + KEY, begin + CALL_END) if tool.may_be_empty else (begin + KEY,)
