"""New ids to what they say: first text, then thoughts; calls are for a parser that each kind of format has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from app.contract.wire import Message
from app.engine.formats.base import Piece, Said, Thought
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.formats.parsing.text import Stripper, overlap

THINK, THOUGHT = "<think>", "</think>"
CONTEXT = 16
"""Ids before an answer's new ones that are read again; more than any character has."""


class TextParser(Protocol):
    """Reads an answer's text, in pieces of any size."""

    def feed(self, text: str) -> tuple[Piece, ...]:
        """More text."""

    def resume(self) -> None:
        """What comes goes on in the middle of an answer's text."""

    def turn(self) -> tuple[Piece, ...]:
        """The model began another segment of its answer, by a control token."""

    def end(self) -> tuple[Piece, ...]:
        """No more text."""


class TokenParser:
    """Decodes ids; `turn_id` begins another segment."""

    def __init__(
        self, detokeniser: Callable[[], IncrementalDetokeniser], inner: TextParser, turn_id: int | None = None
    ) -> None:
        self._new = detokeniser
        self._detokeniser = detokeniser()
        self._inner = inner
        self._turn_id = turn_id

    def resume(self, ids: Sequence[int]) -> None:
        """What comes goes on behind these ids: how a token reads depends on those before it."""
        for token in ids[-CONTEXT:]:
            self._detokeniser.feed(token)

    def push(self, token: int) -> tuple[Piece, ...]:
        """See `Parser.push`."""
        if token != self._turn_id:
            return self._inner.feed(self._detokeniser.feed(token))
        pieces = self._inner.feed(self._detokeniser.flush())
        self._detokeniser = self._new()
        return pieces + self._inner.turn()

    def end(self) -> tuple[Piece, ...]:
        """See `Parser.end`."""
        return self._inner.feed(self._detokeniser.flush()) + self._inner.end()


def parser_of(
    detokeniser: Callable[[], IncrementalDetokeniser],
    inner: TextParser,
    begun: Message | None,
    prompt_ids: Sequence[int],
    turn_id: int | None = None,
) -> TokenParser:
    """For an answer behind `prompt_ids`, which goes on with `begun` where there is such a one."""
    parser = TokenParser(detokeniser, inner, turn_id)
    if begun is not None:
        if isinstance(inner, ThinkingParser) and not begun.content:
            inner.resume_thoughts()
        else:
            inner.resume()
        parser.resume(prompt_ids)
    return parser


class PlainParser:
    """All text is the answer, as it is written."""

    def resume(self) -> None:
        """See `TextParser.resume`."""

    def feed(self, text: str) -> tuple[Piece, ...]:
        """See `TextParser.feed`."""
        return said(text)

    def turn(self) -> tuple[Piece, ...]:
        """See `TextParser.turn`."""
        return ()

    def end(self) -> tuple[Piece, ...]:
        """See `TextParser.end`."""
        return ()


class ThinkingParser:
    """Tells thoughts from what follows them, which goes to `inner`.

    Thoughts begin where the answer does: with `<think>`, or without it where the prompt ends in one (`opened`).
    White space around thoughts is no part of them.
    """

    def __init__(self, inner: TextParser, opened: bool) -> None:
        self._inner = inner
        self._opened = opened
        self._state: Callable[[], tuple[Piece, ...]] = self._before
        self._held = ""
        self._stripper = Stripper()

    def resume(self) -> None:
        """See `TextParser.resume`."""
        self._state = self._after
        self._inner.resume()

    def resume_thoughts(self) -> None:
        """What comes goes on in the middle of thoughts."""
        self._state = self._inside
        self._stripper.resume()

    def feed(self, text: str) -> tuple[Piece, ...]:
        """See `TextParser.feed`."""
        self._held += text
        return self._state()

    def turn(self) -> tuple[Piece, ...]:
        """See `TextParser.turn`. Thoughts go on over it."""
        return self._inner.turn() if self._state == self._after else ()

    def end(self) -> tuple[Piece, ...]:
        """See `TextParser.end`."""
        rest, self._held = self._held, ""
        if self._state == self._after or (self._state == self._before and not self._opened):
            return self._inner.feed(rest) + self._inner.end()
        return self._thought(rest) + self._inner.end()

    def _before(self) -> tuple[Piece, ...]:
        start = self._held.lstrip()
        if (THINK.startswith(start) or THOUGHT.startswith(start)) and start not in (THINK, THOUGHT):
            return ()
        thinks = self._opened
        for tag in (THINK, THOUGHT):
            if start.startswith(tag):
                thinks, self._held = tag == THINK, start.removeprefix(tag)
        self._state = self._inside if thinks else self._after
        return self._state()

    def _inside(self) -> tuple[Piece, ...]:
        thought, end, rest = self._held.partition(THOUGHT)
        if end:
            self._held, self._state = rest, self._after
            return self._thought(thought) + self._after()
        keep = overlap(self._held, THOUGHT)
        thought = self._held[: len(self._held) - keep]
        self._held = self._held[len(thought) :]
        return self._thought(thought)

    def _after(self) -> tuple[Piece, ...]:
        text, self._held = self._held, ""
        return self._inner.feed(text)

    def _thought(self, text: str) -> tuple[Piece, ...]:
        shown = self._stripper.feed(text)
        return (Thought(shown),) if shown else ()


def said(text: str) -> tuple[Piece, ...]:
    """The text as a piece, where there is any."""
    return (Said(text),) if text else ()
