"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from dataclasses import dataclass

from app.engine.formats.parsing.text import overlap


@dataclass(frozen=True)
class Cut:
    """`text` may be shown; `stopped` says that a stop string followed it."""

    text: str
    stopped: bool


class StopMatcher:
    """Passes text through up to the first stop string; what may be a beginning of one is held back."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def feed(self, text: str) -> Cut:
        """Adds text. After a cut that `stopped`, nothing more may be fed."""
        text = self._held + text
        # The match that is complete first counts, the longest of several: so the pieces' borders do not matter.
        found = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return Cut(text[: min(found)[1]], stopped=True)
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        shown = len(text) - keep
        self._held = text[shown:]
        return Cut(text[:shown], stopped=False)

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held
