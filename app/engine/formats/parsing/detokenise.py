"""Ids to text, a token at a time, in whole characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "�"
"""What decoders write for bytes that are no character, or not yet one."""
LONGEST = 4
"""Bytes of a character in UTF-8."""


class IncrementalDetokeniser:
    """Decodes a short window of ids again with each new one, and shows what the window gained.

    The window begins at the last but one place where text was complete: decoders treat the first token of a
    text in their own ways (leading spaces), so a token is never decoded without the ones before it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._known = 0
        """Ids of the window whose text was shown."""

    def feed(self, token: int) -> str:
        """See `Detokeniser.feed`."""
        self._window.append(token)
        shown = self._decode(self._window[: self._known])
        text = self._decode(self._window)
        if text == shown:
            self._window.pop()  # a control token; kept, many of them would make the window long
            return ""
        border = len(self._window)
        if text.endswith(INCOMPLETE):
            border = self._certain(shown, text)
            if not border:
                return ""
            text = self._decode(self._window[:border])
        self._window = self._window[self._known :]
        self._known = border - self._known
        return text[len(shown) :]

    def _certain(self, shown: str, text: str) -> int:
        """Ids of the window whose text nothing can change any more, 0 where there are none.

        A character that is not complete yet is short. Behind it stand many where a model writes bytes that are none,
        or the replacement character itself; held back until their end, they would make the window long.
        """
        if len(text) - len(shown) < 2 * LONGEST:
            return 0
        for border in range(len(self._window) - LONGEST, self._known, -1):
            part = self._decode(self._window[:border])
            if text.startswith(part) and len(text) - len(part) >= LONGEST:
                return border
        return 0

    def flush(self) -> str:
        """See `Detokeniser.flush`."""
        shown = self._decode(self._window[: self._known])
        return self._decode(self._window)[len(shown) :].rstrip(INCOMPLETE)
