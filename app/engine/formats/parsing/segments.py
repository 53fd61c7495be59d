"""Parses the answers of ChatGLM3 and GLM-4 (9B-chat, 0414, Z1): segments of text, or of a tool's name and a call."""

from __future__ import annotations

from app.engine.formats.parsing.answer_parser import text_parts
from app.engine.formats.parsing.calls import ReadArguments
from app.engine.formats.parsing.parts import AnswerPart, ToolCallPart
from app.engine.formats.parsing.text import Replacer


class SegmentParser:
    """A segment is a call if its first line that is not empty is a tool's name and the rest its arguments.

    As in the published `process_response`: text after an empty first line is stripped at both ends, other text is left
    as it is, and a mark that the models were trained to write for the date of their training is replaced by it.
    """

    def __init__(self, names: frozenset[str], read_arguments: ReadArguments) -> None:
        self._names = names
        self._read_arguments = read_arguments
        self._had_text = False
        """Whether this or an earlier segment had text."""
        self._is_text: bool
        self._is_call: bool
        self._head: str
        """The segment, until it is known to be text."""
        self._begin()

    def resume(self) -> None:
        """An interrupted call was returned as text, and stays text."""
        self._is_text, self._empty, self._had_text = True, False, True
        self._answer.resume()

    def feed(self, text: str) -> tuple[AnswerPart, ...]:
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
        return () if self._is_call else self._head_as_text()

    def new_segment(self) -> tuple[AnswerPart, ...]:
        parts = self.end()
        self._begin()
        return parts

    def end(self) -> tuple[AnswerPart, ...]:
        parts: tuple[AnswerPart, ...] = ()
        if not self._is_text:
            name, _, body = self._head.lstrip().partition("\n")
            arguments = self._read_arguments(name.strip(), body) if self._is_call else None
            if arguments is not None:
                return (ToolCallPart(name.strip(), arguments),)
            parts = self._head_as_text()
        return parts + self._text_parts(self._date.feed(self._answer.flush()) + self._date.flush())

    def _begin(self) -> None:
        self._is_text = self._is_call = False
        self._head = ""
        self._answer = AnswerText()
        self._date = Replacer("[[训练时间]]", "2023年")
        self._empty = True

    def _head_as_text(self) -> tuple[AnswerPart, ...]:
        self._is_text = True
        return self._text(self._head)

    def _text(self, text: str) -> tuple[AnswerPart, ...]:
        return self._text_parts(self._date.feed(self._answer.feed(text)))

    def _text_parts(self, text: str) -> tuple[AnswerPart, ...]:
        if text and self._empty:
            text = ("\n" if self._had_text else "") + text
            self._empty, self._had_text = False, True
        return text_parts(text)


class AnswerText:
    """Removes what ChatGLM3 and GLM-4 write before an answer: an empty first line, and a space."""

    def __init__(self) -> None:
        self._space = ""
        """White space that may turn out to be inside the answer."""
        self._started = False
        self._strip_end = True

    def resume(self) -> None:
        """The text to come continues an answer, after an empty first line."""
        self._started = True

    def feed(self, text: str) -> str:
        """The text that is certain now."""
        text = self._space + text
        if not self._started and text.strip():
            self._started = True
            self._strip_end = "\n" in text[: -len(text.lstrip())]
            text = text.lstrip() if self._strip_end else text
        shown = text.rstrip() if self._started else ""
        self._space = text[len(shown) :]
        return shown

    def flush(self) -> str:
        """The text held back; no more comes."""
        return "" if self._strip_end else self._space
