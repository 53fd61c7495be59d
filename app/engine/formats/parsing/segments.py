"""What ChatGLM3 and GLM-4 (9B-chat, 0414, Z1) answer: segments that are text, or a tool's name and a call."""

from __future__ import annotations

from app.engine.formats.base import Called, Piece
from app.engine.formats.parsing.answer_parser import said
from app.engine.formats.parsing.calls import ReadArguments
from app.engine.formats.parsing.text import Replacer


class SegmentParser:
    """A segment whose first line, empty ones apart, is a tool's name and whose rest is its arguments is a call.

    As in the published `process_response`: text behind an empty first line is stripped at both ends, other text is
    left as it is, and a mark that the models were trained to write for their own date is replaced by it.
    """

    def __init__(self, names: frozenset[str], read_arguments: ReadArguments) -> None:
        self._names = names
        self._read_arguments = read_arguments
        self._spoken = False
        """Whether a segment before had text."""
        self._is_text: bool
        self._is_call: bool
        self._head: str
        """The segment, until it is known to be text."""
        self._begin()

    def resume(self) -> None:
        """See `TextParser.resume`. What was broken off in a call had been told as text, and stays text."""
        self._is_text, self._silent, self._spoken = True, False, True
        self._answer.resume()

    def feed(self, text: str) -> tuple[Piece, ...]:
        """See `TextParser.feed`."""
        if self._is_text:
            return self._text(text)
        self._head += text
        if self._is_call:
            return ()
        line, newline, _ = self._head.lstrip().partition("\n")
        if newline:
            self._is_call = line.strip() in self._names
        elif any(name.startswith(line.strip()) for name in self._names):
            return ()
        return () if self._is_call else self._no_call()

    def turn(self) -> tuple[Piece, ...]:
        """See `TextParser.turn`."""
        pieces = self.end()
        self._begin()
        return pieces

    def end(self) -> tuple[Piece, ...]:
        """See `TextParser.end`."""
        pieces: tuple[Piece, ...] = ()
        if not self._is_text:
            name, _, body = self._head.lstrip().partition("\n")
            arguments = self._read_arguments(name.strip(), body) if self._is_call else None
            if arguments is not None:
                return (Called(name.strip(), arguments),)
            pieces = self._no_call()
        return pieces + self._told(self._date.feed(self._answer.flush()) + self._date.flush())

    def _begin(self) -> None:
        self._is_text = self._is_call = False
        self._head = ""
        self._answer = AnswerText()
        self._date = Replacer("[[训练时间]]", "2023年")
        self._silent = True

    def _no_call(self) -> tuple[Piece, ...]:
        self._is_text = True
        return self._text(self._head)

    def _text(self, text: str) -> tuple[Piece, ...]:
        return self._told(self._date.feed(self._answer.feed(text)))

    def _told(self, text: str) -> tuple[Piece, ...]:
        if text and self._silent:
            text = ("\n" if self._spoken else "") + text
            self._silent, self._spoken = False, True
        return said(text)


class AnswerText:
    """Takes off what ChatGLM3 and GLM-4 put before an answer: an empty first line, and a space."""

    def __init__(self) -> None:
        self._space = ""
        """White space that is not yet known to stand inside the answer."""
        self._begun = False
        self._strip_end = True

    def resume(self) -> None:
        """What comes goes on in the middle, behind an empty first line."""
        self._begun = True

    def feed(self, text: str) -> str:
        """What is certain now."""
        text = self._space + text
        if not self._begun and text.strip():
            self._begun = True
            self._strip_end = "\n" in text[: -len(text.lstrip())]
            text = text.lstrip() if self._strip_end else text
        shown = text.rstrip() if self._begun else ""
        self._space = text[len(shown) :]
        return shown

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        return "" if self._strip_end else self._space
