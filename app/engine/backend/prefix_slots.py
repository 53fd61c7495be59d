"""Which tokens lie in which slot, so that what two sequences begin with is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_REUSE = 16
"""Tokens; a shorter common beginning is not worth a slot that another sequence may come back to."""


@dataclass(frozen=True)
class Seat:
    """Where a new sequence goes: `slot`, whose first `kept` tokens are there once they are copied from `source`."""

    slot: int
    source: int
    kept: int


class Slots:
    """The ids whose keys and values each slot holds, and which slots are in use."""

    def __init__(self, count: int) -> None:
        self._ids: list[list[int]] = [[] for _ in range(count)]
        self._free = list(range(count))
        """Least recently used first."""

    @property
    def used(self) -> list[int]:
        """Slots in use, ascending."""
        return [slot for slot in range(len(self._ids)) if slot not in self._free]

    def take(self, prompt: Sequence[int]) -> Seat:
        """Seats a sequence: where it goes on from what is held, or in the slot longest unused.

        A slot that holds more beside the common beginning is somebody's who may come back; that beginning is copied.
        """
        limit = len(prompt) - 1  # the last token's output is needed, so that one is always computed
        shared = [min(limit, _common(ids, prompt)) for ids in self._ids]
        source = max(range(len(shared)), key=lambda slot: (shared[slot], slot in self._free))
        kept = shared[source] if shared[source] >= LEAST_REUSE else 0
        goes_on = source in self._free and kept > len(self._ids[source]) // 2
        slot = source if goes_on else self._spare()
        self._free.remove(slot)
        self._ids[slot] = list(prompt[:kept])
        return Seat(slot, source if kept else slot, kept)

    def append(self, slot: int, ids: Sequence[int]) -> None:
        """Notes that ids were computed behind those that the slot holds."""
        self._ids[slot].extend(ids)

    def length(self, slot: int) -> int:
        """Tokens that the slot holds."""
        return len(self._ids[slot])

    def lengths(self) -> tuple[int, ...]:
        """Tokens that each slot holds."""
        return tuple(len(ids) for ids in self._ids)

    def leave(self, slot: int) -> None:
        """The sequence is over; what it computed stays until the slot is needed."""
        self._free.append(slot)

    def forget(self, slot: int) -> None:
        """The slot holds nothing any more."""
        self._ids[slot] = []

    def _spare(self) -> int:
        empty = [slot for slot in self._free if not self._ids[slot]]
        return min(empty) if empty else self._free[0]


def _common(held: Sequence[int], prompt: Sequence[int]) -> int:
    count = 0
    for ours, theirs in zip(held, prompt, strict=False):
        if ours != theirs:
            break
        count += 1
    return count
