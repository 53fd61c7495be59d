"""The queue for slots: clients take turns, and each client's requests are served first come, first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
RESERVED_SHARE = 4
"""One place in so many is kept free from the client that has all others, so that a newcomer finds one."""


class FairQueue(Generic[T]):
    """Not thread-safe: its user holds a lock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.client_limit = limit - limit // RESERVED_SHARE
        """How many requests of one client may wait."""
        self._by_client: dict[str, deque[T]] = {}
        """The first client's turn is next."""

    def __len__(self) -> int:
        return sum(len(requests) for requests in self._by_client.values())

    def count(self, client: str) -> int:
        """How many requests of this client wait."""
        return len(self._by_client.get(client, ()))

    def add_request(self, client: str, request: T) -> None:
        """Adds a request after its client's others; a client without any comes after the other clients."""
        self._by_client.setdefault(client, deque()).append(request)

    def peek_request(self) -> T:
        """The next request. Raises StopIteration if none waits."""
        return next(iter(self._by_client.values()))[0]

    def pop_request(self) -> T:
        """Removes and returns the next request; its client's next turn comes after all others'."""
        client = next(iter(self._by_client))
        requests = self._by_client.pop(client)
        request = requests.popleft()
        if requests:
            self._by_client[client] = requests
        return request

    def remove_requests(self, condition: Callable[[T], bool]) -> list[T]:
        """Removes and returns every request that meets the condition."""
        removed = [request for request in self._requests() if condition(request)]
        left = {
            client: deque(request for request in requests if not condition(request))
            for client, requests in self._by_client.items()
        }
        self._by_client = {client: requests for client, requests in left.items() if requests}
        return removed

    def _requests(self) -> Iterator[T]:
        for requests in self._by_client.values():
            yield from requests
