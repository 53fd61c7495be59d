"""Helpers for text that arrives piece by piece."""

from __future__ import annotations


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a beginning of `mark`, but not all of it."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def replace_surrogates(text: str) -> str:
    """Joins surrogate pairs and replaces lone ones, which JSON can contain and no tokenizer can encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Replacer:
    """Replaces one text by another."""

    def __init__(self, mark: str, replacement: str) -> None:
        self._mark = mark
        self._replacement = replacement
        self._buffer = ""

    def feed(self, text: str) -> str:
        """The text that is certain now."""
        text = (self._buffer + text).replace(self._mark, self._replacement)
        shown = len(text) - overlap(text, self._mark)
        self._buffer = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """The text held back; no more comes."""
        text, self._buffer = self._buffer, ""
        return text


class Stripper:
    """Strips white space at both ends."""

    def __init__(self) -> None:
        self._space = ""
        self._started = False

    def resume(self) -> None:
        """The text to come continues an answer."""
        self._started = True

    def feed(self, text: str) -> str:
        """The text that is known to be between the ends."""
        text = self._space + text
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        shown = text.rstrip()
        self._space = text[len(shown) :]
        return shown
