"""What GLM-4.5 and later answer behind their thoughts: text, and calls between tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.engine.formats.base import Called, Piece
from app.engine.formats.parsing.answer_parser import said
from app.engine.formats.parsing.calls import tagged_arguments
from app.engine.formats.parsing.text import Stripper, overlap

CALL, CALL_END = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
TAG = re.compile(f"{VALUE}|{VALUE_END}|{CALL_END}")


class TaggedParser:
    """GLM-4.5's calls, `<tool_call>name … </tool_call>`; the text around them is stripped at both ends.

    `tools` has the properties of each tool's parameters by the tool's name; a call of any other is text.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._tools = tools
        self._held = ""
        self._in_call = False
        self._seen = 0
        """How far the held call was searched for its end."""
        self._in_value = False
        """Whether a value begins before there and does not end."""
        self._stripper = Stripper()

    def resume(self) -> None:
        """See `TextParser.resume`."""
        self._stripper.resume()

    def feed(self, text: str) -> tuple[Piece, ...]:
        """See `TextParser.feed`."""
        if not self._tools:
            return said(self._stripper.feed(text))
        self._held += text
        pieces: tuple[Piece, ...] = ()
        while (found := self._step()) is not None:
            pieces += found
        return pieces

    def turn(self) -> tuple[Piece, ...]:
        """See `TextParser.turn`. This format's answers have one segment."""
        return ()

    def end(self) -> tuple[Piece, ...]:
        """See `TextParser.end`."""
        rest, self._held = self._held, ""
        return said(self._stripper.feed(rest))

    def _step(self) -> tuple[Piece, ...] | None:
        """One text or one call; None where more has to come."""
        if self._in_call:
            end = self._call_end()
            return None if end is None else self._call(end)
        place = self._held.find(CALL)
        self._in_call = place >= 0
        shown = place if self._in_call else len(self._held) - overlap(self._held, CALL)
        if not (shown or self._in_call):
            return None
        text, self._held = self._held[:shown], self._held[shown:]
        self._seen, self._in_value = 0, False
        return said(self._stripper.feed(text))

    def _call_end(self) -> int | None:
        """Where the held call ends, by the first end tag that stands in no value."""
        while match := TAG.search(self._held, self._seen):
            self._seen = match.end()
            if match.group() != CALL_END:
                self._in_value = match.group() == VALUE
            elif not self._in_value:
                return self._seen
        self._seen = max(self._seen, len(self._held) - len(CALL_END) + 1)
        return None

    def _call(self, end: int) -> tuple[Piece, ...]:
        whole, self._held = self._held[:end], self._held[end:]
        self._in_call = False
        inner = whole[len(CALL) : -len(CALL_END)]
        cut = min((place for mark in ("\n", KEY) if (place := inner.find(mark)) >= 0), default=len(inner))
        name = inner[:cut].strip()
        arguments = tagged_arguments(self._tools[name], inner[cut:]) if name in self._tools else None
        return said(self._stripper.feed(whole)) if arguments is None else (Called(name, arguments),)
