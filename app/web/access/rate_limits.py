"""Limits for each client: requests a minute, requests at once, wrong keys. A client is an address."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from functools import partial
from typing import NoReturn

from flask import Flask, Response, g, request
from flask_limiter import Limiter, RequestLimit
from limits import RateLimitItem, RateLimitItemPerMinute

from app.web.access.rules import LONG_RUNNING, RULES
from app.web.http.errors import ApiError

REQUESTS_A_MINUTE = 6000
MOST_RUNNING = 64
"""Long-running requests of one client at once."""
WRONG_SIGN_INS = RateLimitItemPerMinute(10, namespace="sign-in")
WRONG_BEARERS = RateLimitItemPerMinute(30, namespace="bearer")


def client() -> str:
    """The current request's address, as trusted proxies report it; for IPv6 the subscriber's /64 (RFC 6177)."""
    try:
        address = ipaddress.ip_address((request.remote_addr or "").partition("%")[0])
    except ValueError:
        return request.remote_addr or "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class RateLimits:
    """Flask-Limiter for requests and wrong keys, and a count of running requests."""

    def __init__(self) -> None:
        self._limiter = Limiter(
            client,
            application_limits=[f"{REQUESTS_A_MINUTE} per minute"],
            application_limits_exempt_when=lambda: RULES.get(request.endpoint or "") == "public",
            storage_uri="memory://",
            on_breach=self._too_many,
        )
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def init_app(self, app: Flask) -> None:
        """Counts every request, before more expensive checks."""
        self._limiter.init_app(app)
        app.after_request(self._release_on_close)

    def check_wrong_keys(self, limit: RateLimitItem) -> None:
        """Raises a 429 after too many wrong keys of this client. Then a further key isn't checked."""
        if not self._limiter.limiter.test(limit, client()):
            raise ApiError(
                429,
                f"Too many wrong keys from this address; try again in {self._seconds_left(limit, client()):.0f} s.",
                "too_many_wrong_keys",
                retry_after_seconds=self._seconds_left(limit, client()),
            )

    def count_wrong_key(self, limit: RateLimitItem) -> None:
        """Counts a wrong key of this client."""
        self._limiter.limiter.hit(limit, client())

    def acquire(self) -> None:
        """Counts a long-running request until its response is closed. Raises a 429 if the client has too many."""
        if request.endpoint not in LONG_RUNNING:
            return
        address = client()
        with self._lock:
            if self._running[address] >= MOST_RUNNING:
                raise ApiError(
                    429,
                    f"At most {MOST_RUNNING} requests of a client may run at the same time.",
                    "too_many_requests",
                    retry_after_seconds=2,
                )
            self._running[address] += 1
        g.running_client = address

    def _release_on_close(self, response: Response) -> Response:
        """A response is closed after its last byte, also if it is a stream."""
        address = g.pop("running_client", None)
        if address is not None:
            response.call_on_close(partial(self._release, address))
        return response

    def _release(self, address: str) -> None:
        with self._lock:
            self._running[address] -= 1
            if self._running[address] <= 0:
                del self._running[address]

    def _seconds_left(self, limit: RateLimitItem, *identifiers: str) -> float:
        return max(1.0, self._limiter.limiter.get_window_stats(limit, *identifiers).reset_time - time.time())

    def _too_many(self, breached: RequestLimit) -> NoReturn:
        seconds = max(1.0, breached.reset_at - time.time())
        message = f"Too many requests from this address; at most {REQUESTS_A_MINUTE} a minute are allowed."
        raise ApiError(429, message, "too_many_requests", retry_after_seconds=seconds)
