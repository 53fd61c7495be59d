"""How often, and how often at once, one client may ask; a client is an address, as far as trusted proxies tell it."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

from flask import Flask, Response, g, request
from flask_limiter import Limiter, RequestLimit
from limits import RateLimitItem, RateLimitItemPerMinute

from app.web.access.rules import HOLDING, RULES
from app.web.http.errors import ApiError

REQUESTS_A_MINUTE = 6000
AT_ONCE = 64
"""Requests that wait for the model."""
WRONG_SIGN_INS = RateLimitItemPerMinute(10, namespace="sign-in")
WRONG_BEARERS = RateLimitItemPerMinute(30, namespace="bearer")


def client() -> str:
    """Whom a request counts for: its address, or for IPv6 the network that one subscriber has whole (RFC 6177)."""
    try:
        address = ipaddress.ip_address((request.remote_addr or "").partition("%")[0])
    except ValueError:
        return request.remote_addr or "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Limits:
    """Flask-Limiter for all that members ask, its counters for wrong keys, and a count of what runs at once."""

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
        """Counts every request; comes before anything that costs more."""
        self._limiter.init_app(app)
        app.after_request(self._hand_over)

    def check_wrong_keys(self, limit: RateLimitItem) -> None:
        """Raises a 429 where this client has shown too many wrong keys: the next one isn't even looked at."""
        if not self._limiter.limiter.test(limit, client()):
            raise ApiError(
                429,
                f"Too many wrong keys from this address; wait {self._seconds_left(limit, client()):.0f} s.",
                "too_many_wrong_keys",
                retry_after_seconds=self._seconds_left(limit, client()),
            )

    def count_wrong_key(self, limit: RateLimitItem) -> None:
        """Notes one."""
        self._limiter.limiter.hit(limit, client())

    def hold(self) -> None:
        """Takes one of the client's places for requests that last; `_hand_over` sees to its return."""
        if request.endpoint not in HOLDING:
            return
        who = client()
        with self._lock:
            if self._running[who] >= AT_ONCE:
                raise ApiError(
                    429,
                    f"At most {AT_ONCE} requests of one client run at the same time.",
                    "too_many_requests",
                    retry_after_seconds=2,
                )
            self._running[who] += 1
        g.held = who

    def _hand_over(self, response: Response) -> Response:
        """The place is free once the response is closed: for a stream, after its last byte."""
        who = g.pop("held", None)
        if who is not None:
            response.call_on_close(self._returner(who))
        return response

    def _returner(self, who: str) -> Callable[[], None]:
        def give_back() -> None:
            with self._lock:
                self._running[who] -= 1
                if self._running[who] <= 0:
                    del self._running[who]

        return give_back

    def _seconds_left(self, limit: RateLimitItem, *identifiers: str) -> float:
        return max(1.0, self._limiter.limiter.get_window_stats(limit, *identifiers).reset_time - time.time())

    def _too_many(self, breached: RequestLimit) -> NoReturn:
        seconds = max(1.0, breached.reset_at - time.time())
        message = f"Too many requests from this address: at most {REQUESTS_A_MINUTE} a minute."
        raise ApiError(429, message, "too_many_requests", retry_after_seconds=seconds)
