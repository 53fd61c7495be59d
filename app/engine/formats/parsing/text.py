"""Small readers of text that arrives in pieces."""

from __future__ import annotations


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a beginning of `mark`, the whole of it excepted."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def replace_surrogates(text: str) -> str:
    """Joins surrogate pairs and replaces lone ones, which JSON can carry and no tokenizer can encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Replacer:
    """Puts one text in another's place."""

    def __init__(self, mark: str, replacement: str) -> None:
        self._mark = mark
        self._replacement = replacement
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain now."""
        text = (self._held + text).replace(self._mark, self._replacement)
        shown = len(text) - overlap(text, self._mark)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


class Stripper:
    """Takes white space off both ends."""

    def __init__(self) -> None:
        self._space = ""
        self._begun = False

    def resume(self) -> None:
        """What comes goes on in the middle."""
        self._begun = True

    def feed(self, text: str) -> str:
        """What is known to lie between the ends."""
        text = self._space + text
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        shown = text.rstrip()
        self._space = text[len(shown) :]
        return shown
