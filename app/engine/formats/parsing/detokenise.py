"""Decodes ids to text, a token at a time, in whole characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "�"
"""What decoders write for bytes that are not a character, or not one yet."""
MAX_CHARACTER_BYTES = 4
"""Bytes of the longest character in UTF-8."""


class IncrementalDetokeniser:
    """Decodes a short window of ids again with each new one, and returns what the window gained.

    The window begins at the last but one place where the text was complete: decoders treat the first token of a text
    specially (leading spaces), so a token is never decoded without those before it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shown_ids = 0
        """Ids of the window whose text was returned."""

    def feed(self, token: int) -> str:
        """The text that this id makes certain, which may be empty."""
        self._window.append(token)
        shown = self._decode(self._window[: self._shown_ids])
        text = self._decode(self._window)
        if text == shown:
            self._window.pop()  # a control token; many of them would make the window long
            return ""
        end = len(self._window)
        if text.endswith(INCOMPLETE):
            end = self._certain_ids(shown, text)
            if not end:
                return ""
            text = self._decode(self._window[:end])
        self._window = self._window[self._shown_ids :]
        self._shown_ids = end - self._shown_ids
        return text[len(shown) :]

    def _certain_ids(self, shown: str, text: str) -> int:
        """Number of ids of the window whose text can't change any more; 0 if there are none.

        An incomplete character is short. Many replacement characters at the end come from a model that writes bytes
        which are not characters, or the replacement character itself; if all were held back, the window would grow.
        """
        if len(text) - len(shown) < 2 * MAX_CHARACTER_BYTES:
            return 0
        for end in range(len(self._window) - MAX_CHARACTER_BYTES, self._shown_ids, -1):
            part = self._decode(self._window[:end])
            if text.startswith(part) and len(text) - len(part) >= MAX_CHARACTER_BYTES:
                return end
        return 0

    def flush(self) -> str:
        """The rest of the text; an incomplete character is dropped."""
        shown = self._decode(self._window[: self._shown_ids])
        return self._decode(self._window)[len(shown) :].rstrip(INCOMPLETE)
