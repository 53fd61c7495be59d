"""The queue for slots: clients take turns, and of one client's requests the first that came is the first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
RESERVED_SHARE = 4
"""One in so many places is never taken by the client that has all the others, so that a newcomer finds one."""


class FairQueue(Generic[T]):
    """Not safe by itself: its user holds a lock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.client_limit = limit - limit // RESERVED_SHARE
        """How many of them may be one client's."""
        self._lines: dict[str, deque[T]] = {}
        """By client; the first one's turn is next."""

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def count(self, client: str) -> int:
        """How many requests of this client wait."""
        return len(self._lines.get(client, ()))

    def add(self, client: str, item: T) -> None:
        """Puts a request behind its client's others, and a client that had none behind the other clients."""
        self._lines.setdefault(client, deque()).append(item)

    def first(self) -> T:
        """Whose turn it is; raises StopIteration where nobody waits."""
        return next(iter(self._lines.values()))[0]

    def pop(self) -> T:
        """Takes out whose turn it is; its client's next turn comes after all others'."""
        client = next(iter(self._lines))
        line = self._lines.pop(client)
        item = line.popleft()
        if line:
            self._lines[client] = line
        return item

    def take(self, wanted: Callable[[T], bool]) -> list[T]:
        """Takes out every request that is `wanted`."""
        taken = [item for item in self._items() if wanted(item)]
        kept = {client: deque(item for item in line if not wanted(item)) for client, line in self._lines.items()}
        self._lines = {client: line for client, line in kept.items() if line}
        return taken

    def _items(self) -> Iterator[T]:
        for line in self._lines.values():
            yield from line
