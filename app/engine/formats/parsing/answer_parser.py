"""Parses new ids: to text first, then to reasoning; each kind of format has its own parser for calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from app.contract.wire import Message
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.parts import AnswerPart, ReasoningPart, TextPart
from app.engine.formats.parsing.text import Stripper, overlap

THINK, THINK_END = "<think>", "</think>"
CONTEXT_IDS = 16
"""Ids before an answer's new ones that are decoded again; no character has more."""


class TextParser(Protocol):
    """Parses an answer's text, in pieces of any size."""

    def feed(self, text: str) -> tuple[AnswerPart, ...]:
        """More text."""

    def resume(self) -> None:
        """The text to come continues an answer's text."""

    def new_segment(self) -> tuple[AnswerPart, ...]:
        """The model began another segment of its answer, by a control token."""

    def end(self) -> tuple[AnswerPart, ...]:
        """No more text."""


class TokenParser:
    """Decodes ids; `segment_id` begins another segment."""

    def __init__(
        self, detokeniser: Callable[[], IncrementalDetokeniser], inner: TextParser, segment_id: int | None = None
    ) -> None:
        self._new_detokeniser = detokeniser
        self._detokeniser = detokeniser()
        self._inner = inner
        self._segment_id = segment_id

    def resume(self, ids: Sequence[int]) -> None:
        """The ids to come follow these: how a token decodes depends on those before it."""
        for token in ids[-CONTEXT_IDS:]:
            self._detokeniser.feed(token)

    def push(self, token: int) -> tuple[AnswerPart, ...]:
        if token != self._segment_id:
            return self._inner.feed(self._detokeniser.feed(token))
        parts = self._inner.feed(self._detokeniser.flush())
        self._detokeniser = self._new_detokeniser()
        return parts + self._inner.new_segment()

    def end(self) -> tuple[AnswerPart, ...]:
        return self._inner.feed(self._detokeniser.flush()) + self._inner.end()


def parser_of(
    detokeniser: Callable[[], IncrementalDetokeniser],
    inner: TextParser,
    partial: Message | None,
    prompt_ids: Sequence[int],
    segment_id: int | None = None,
) -> TokenParser:
    """The parser of an answer that follows `prompt_ids`; it continues `partial` unless that is None."""
    parser = TokenParser(detokeniser, inner, segment_id)
    if partial is not None:
        if isinstance(inner, ThinkingParser) and not partial.content:
            inner.resume_reasoning()
        else:
            inner.resume()
        parser.resume(prompt_ids)
    return parser


class PlainParser:
    """All text is the answer, as it is written."""

    def resume(self) -> None:
        """Changes nothing."""

    def feed(self, text: str) -> tuple[AnswerPart, ...]:
        return text_parts(text)

    def new_segment(self) -> tuple[AnswerPart, ...]:
        return ()

    def end(self) -> tuple[AnswerPart, ...]:
        return ()


class ThinkingParser:
    """Separates the reasoning from the text after it, which goes to `inner`.

    The reasoning begins where the answer does: with `<think>`, or without it if the prompt ends in one (`opened`).
    White space around it is not part of it.
    """

    def __init__(self, inner: TextParser, opened: bool) -> None:
        self._inner = inner
        self._opened = opened
        self._state: Callable[[], tuple[AnswerPart, ...]] = self._before
        self._buffer = ""
        self._stripper = Stripper()

    def resume(self) -> None:
        self._state = self._after
        self._inner.resume()

    def resume_reasoning(self) -> None:
        """The text to come continues the reasoning."""
        self._state = self._inside
        self._stripper.resume()

    def feed(self, text: str) -> tuple[AnswerPart, ...]:
        self._buffer += text
        return self._state()

    def new_segment(self) -> tuple[AnswerPart, ...]:
        """Inside the reasoning it has no meaning."""
        return self._inner.new_segment() if self._state == self._after else ()

    def end(self) -> tuple[AnswerPart, ...]:
        rest, self._buffer = self._buffer, ""
        if self._state == self._after or (self._state == self._before and not self._opened):
            return self._inner.feed(rest) + self._inner.end()
        return self._reasoning(rest) + self._inner.end()

    def _before(self) -> tuple[AnswerPart, ...]:
        start = self._buffer.lstrip()
        if (THINK.startswith(start) or THINK_END.startswith(start)) and start not in (THINK, THINK_END):
            return ()
        reasons = self._opened
        for tag in (THINK, THINK_END):
            if start.startswith(tag):
                reasons, self._buffer = tag == THINK, start.removeprefix(tag)
        self._state = self._inside if reasons else self._after
        return self._state()

    def _inside(self) -> tuple[AnswerPart, ...]:
        text, end, rest = self._buffer.partition(THINK_END)
        if end:
            self._buffer, self._state = rest, self._after
            return self._reasoning(text) + self._after()
        keep = overlap(self._buffer, THINK_END)
        text = self._buffer[: len(self._buffer) - keep]
        self._buffer = self._buffer[len(text) :]
        return self._reasoning(text)

    def _after(self) -> tuple[AnswerPart, ...]:
        text, self._buffer = self._buffer, ""
        return self._inner.feed(text)

    def _reasoning(self, text: str) -> tuple[AnswerPart, ...]:
        stripped = self._stripper.feed(text)
        return (ReasoningPart(stripped),) if stripped else ()


def text_parts(text: str) -> tuple[AnswerPart, ...]:
    """The text as a part, unless it is empty."""
    return (TextPart(text),) if text else ()
