"""Which tokens each slot holds, so that a prefix shared by two sequences is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_REUSED_TOKENS = 16
"""A shorter common prefix is not worth a slot that another sequence may come back to."""


@dataclass(frozen=True)
class SlotAssignment:
    """A new sequence's `slot`; it holds the first `reused_tokens` of the prompt once they are copied from `source`."""

    slot: int
    source: int
    reused_tokens: int


class PrefixSlots:
    """The ids whose keys and values each slot holds, and which slots are in use."""

    def __init__(self, count: int) -> None:
        self._ids: list[list[int]] = [[] for _ in range(count)]
        self._free = list(range(count))
        """Least recently used first."""

    @property
    def used(self) -> list[int]:
        """Slots in use, ascending."""
        return [slot for slot in range(len(self._ids)) if slot not in self._free]

    def assign(self, prompt: Sequence[int]) -> SlotAssignment:
        """Assigns a slot: the one with the longest common prefix, or the least recently used.

        A slot that holds more than the common prefix belongs to a sequence that may come back: the prefix is copied.
        """
        limit = len(prompt) - 1  # the last token is always computed: its output is needed
        shared = [min(limit, _common_prefix(ids, prompt)) for ids in self._ids]
        source = max(range(len(shared)), key=lambda slot: (shared[slot], slot in self._free))
        reused = shared[source] if shared[source] >= MIN_REUSED_TOKENS else 0
        continues = source in self._free and reused > len(self._ids[source]) // 2
        slot = source if continues else self._least_recently_used()
        self._free.remove(slot)
        self._ids[slot] = list(prompt[:reused])
        return SlotAssignment(slot, source if reused else slot, reused)

    def append(self, slot: int, ids: Sequence[int]) -> None:
        """Records ids that were computed after those that the slot holds."""
        self._ids[slot].extend(ids)

    def length(self, slot: int) -> int:
        """Tokens that the slot holds."""
        return len(self._ids[slot])

    def lengths(self) -> tuple[int, ...]:
        """Tokens that each slot holds."""
        return tuple(len(ids) for ids in self._ids)

    def release(self, slot: int) -> None:
        """Frees the slot; its tokens stay until another sequence needs it."""
        self._free.append(slot)

    def clear(self, slot: int) -> None:
        """Forgets the slot's tokens."""
        self._ids[slot] = []

    def _least_recently_used(self) -> int:
        empty = [slot for slot in self._free if not self._ids[slot]]
        return min(empty) if empty else self._free[0]


def _common_prefix(ids: Sequence[int], prompt: Sequence[int]) -> int:
    count = 0
    for ours, theirs in zip(ids, prompt, strict=False):
        if ours != theirs:
            break
        count += 1
    return count
