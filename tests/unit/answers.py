"""Reads answers as the chat formats' parsers do, for the tests of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from app.engine.formats.parsing.answer_parser import TextParser, ThinkingParser
from app.engine.formats.parsing.calls import json_arguments, python_arguments
from app.engine.formats.parsing.parts import AnswerPart, ReasoningPart, TextPart, ToolCallPart
from app.engine.formats.parsing.segments import SegmentParser
from app.engine.formats.parsing.tagged import TaggedParser

TURN = "\N{SYMBOL FOR RECORD SEPARATOR}"
"""Stands for the control token that begins another segment."""
PROPERTIES: dict[str, dict[str, Any]] = {
    "get_weather": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "where": {"type": "object"},
    },
    "now": {},
}
NAMES = frozenset(PROPERTIES)

PARSERS: dict[str, Callable[[], TextParser]] = {
    "chatglm3": lambda: SegmentParser(NAMES, python_arguments),
    "glm4": lambda: SegmentParser(NAMES, json_arguments),
    "z1": lambda: ThinkingParser(SegmentParser(NAMES, json_arguments), opened=True),
    "glm45": lambda: ThinkingParser(TaggedParser(PROPERTIES), opened=False),
    "glm47": lambda: ThinkingParser(TaggedParser(PROPERTIES), opened=True),
    "no tools": lambda: ThinkingParser(TaggedParser({}), opened=False),
}


def read(parser: TextParser, pieces: Iterable[str]) -> list[AnswerPart]:
    """What an answer that comes in these pieces says, neighbours of one kind joined."""
    told: list[AnswerPart] = []
    for piece in pieces:
        for number, part in enumerate(piece.split(TURN)):
            told += parser.new_segment() if number else ()
            told += parser.feed(part)
    return joined((*told, *parser.end()))


def joined(pieces: Iterable[AnswerPart]) -> list[AnswerPart]:
    """Neighbours of one kind as one."""
    whole: list[AnswerPart] = []
    for piece in pieces:
        last = whole[-1] if whole else None
        if isinstance(piece, TextPart) and isinstance(last, TextPart):
            whole[-1] = TextPart(last.text + piece.text)
        elif isinstance(piece, ReasoningPart) and isinstance(last, ReasoningPart):
            whole[-1] = ReasoningPart(last.text + piece.text)
        else:
            whole.append(piece)
    return whole


def cut(text: str, places: Iterable[int]) -> list[str]:
    """The text in pieces, cut at these places."""
    edges = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[start:end] for start, end in pairwise(edges)]


def call(name: str = "get_weather", arguments: str = '{"city": "北京"}') -> ToolCallPart:
    return ToolCallPart(name, arguments)
