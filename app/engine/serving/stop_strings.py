"""Stop strings in text that arrives piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

from app.engine.formats.parsing.text import overlap


@dataclass(frozen=True)
class StopMatch:
    """`text` may be shown; `stopped` is true if a stop string follows it."""

    text: str
    stopped: bool


class StopMatcher:
    """Passes text through up to the first stop string; a possible beginning of one is held back."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._buffer = ""

    def feed(self, text: str) -> StopMatch:
        """Adds text. After a match that `stopped`, nothing more may be fed."""
        text = self._buffer + text
        # The match that ends first counts, of several the longest: so the borders of the pieces do not matter.
        matches = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if matches:
            self._buffer = ""
            return StopMatch(text[: min(matches)[1]], stopped=True)
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        shown = len(text) - keep
        self._buffer = text[shown:]
        return StopMatch(text[:shown], stopped=False)

    def flush(self) -> str:
        """The text held back; no more comes."""
        text, self._buffer = self._buffer, ""
        return text
