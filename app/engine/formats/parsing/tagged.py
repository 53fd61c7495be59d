"""Parses the text and the tagged calls that GLM-4.5 and later write after their reasoning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.engine.formats.parsing.answer_parser import text_parts
from app.engine.formats.parsing.calls import tagged_arguments
from app.engine.formats.parsing.parts import AnswerPart, ToolCallPart
from app.engine.formats.parsing.text import Stripper, overlap

CALL, CALL_END = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
TAG = re.compile(f"{VALUE}|{VALUE_END}|{CALL_END}")


class TaggedParser:
    """GLM-4.5's calls, `<tool_call>name … </tool_call>`; the text around them is stripped at both ends.

    `tools` has the properties of each tool's parameters by the tool's name; a call of another tool is text.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._tools = tools
        self._buffer = ""
        self._in_call = False
        self._searched = 0
        """How far the buffered call was searched for its end."""
        self._in_value = False
        """Whether a value begins before there and does not end."""
        self._stripper = Stripper()

    def resume(self) -> None:
        self._stripper.resume()

    def feed(self, text: str) -> tuple[AnswerPart, ...]:
        if not self._tools:
            return text_parts(self._stripper.feed(text))
        self._buffer += text
        parts: tuple[AnswerPart, ...] = ()
        while (next_parts := self._next()) is not None:
            parts += next_parts
        return parts

    def new_segment(self) -> tuple[AnswerPart, ...]:
        """This format's answers have one segment."""
        return ()

    def end(self) -> tuple[AnswerPart, ...]:
        rest, self._buffer = self._buffer, ""
        return text_parts(self._stripper.feed(rest))

    def _next(self) -> tuple[AnswerPart, ...] | None:
        """One text or one call; None if more has to come."""
        if self._in_call:
            end = self._call_end()
            return None if end is None else self._call(end)
        start = self._buffer.find(CALL)
        self._in_call = start >= 0
        shown = start if self._in_call else len(self._buffer) - overlap(self._buffer, CALL)
        if not (shown or self._in_call):
            return None
        text, self._buffer = self._buffer[:shown], self._buffer[shown:]
        self._searched, self._in_value = 0, False
        return text_parts(self._stripper.feed(text))

    def _call_end(self) -> int | None:
        """Where the buffered call ends: at the first end tag outside a value."""
        while match := TAG.search(self._buffer, self._searched):
            self._searched = match.end()
            if match.group() != CALL_END:
                self._in_value = match.group() == VALUE
            elif not self._in_value:
                return self._searched
        self._searched = max(self._searched, len(self._buffer) - len(CALL_END) + 1)
        return None

    def _call(self, end: int) -> tuple[AnswerPart, ...]:
        whole, self._buffer = self._buffer[:end], self._buffer[end:]
        self._in_call = False
        inner = whole[len(CALL) : -len(CALL_END)]
        cut = min((index for mark in ("\n", KEY) if (index := inner.find(mark)) >= 0), default=len(inner))
        name = inner[:cut].strip()
        arguments = tagged_arguments(self._tools[name], inner[cut:]) if name in self._tools else None
        if arguments is None:
            return text_parts(self._stripper.feed(whole))
        return (ToolCallPart(name, arguments),)
