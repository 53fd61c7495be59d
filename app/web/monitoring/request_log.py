"""Logs one JSON line for each request to the model: ids, counts and times, never content."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, request

from app.contract.wire import Accepted, Delta, Finished, Reply
from app.web.monitoring.request_metrics import RequestMetrics

_PREFIXES = ("/v1/", "/tokenize", "/detokenize", "/invocations")
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids that a client may choose. Others could forge a log line or a header."""
_log = logging.getLogger("berth.requests")


class LogFormatter(logging.Formatter):
    """Text for people, except the lines about requests: those are JSON already."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.name == _log.name else super().format(record)


def new_id() -> str:
    """A new request id."""
    return f"req_{uuid.uuid4().hex}"


@dataclass
class RequestRecord:
    """What is known of one request. It is mutable, since its facts arrive over minutes.

    Its creator must call `end` when the request is over.
    """

    id: str = field(default_factory=new_id)
    method: str = ""
    path: str = ""
    client: str = ""
    """The client's address. The engine's queue is fair between clients."""
    metrics: RequestMetrics | None = None
    """Where it is counted; set for chat requests."""
    model: str | None = None
    stream: bool | None = None
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    queue_seconds: float | None = None
    outcome: str | None = None
    """A finish reason, an error's code, or `client_left`. None if a request without an answer succeeded."""
    finished: Finished | None = None
    _ended: bool = False

    def note(self, reply: Reply | None) -> None:
        """Records a reply of the engine."""
        if isinstance(reply, Accepted):
            self.prompt_tokens, self.completion_tokens, self.outcome = reply.prompt_tokens, 0, "client_left"
        elif isinstance(reply, Delta):
            self._count_tokens(reply.tokens)
        elif isinstance(reply, Finished):
            self._count_tokens(reply.completion_tokens - (self.completion_tokens or 0), arriving=False)
            self.finished, self.outcome, self.completion_tokens = reply, reply.finish_reason, reply.completion_tokens
            self.cached_tokens, self.queue_seconds = reply.cached_tokens, reply.queue_seconds

    def _count_tokens(self, count: int, arriving: bool = True) -> None:
        """Counts tokens of the answer. An end mark is counted at the end, but it doesn't arrive as text."""
        if count <= 0:
            return
        self.completion_tokens = (self.completion_tokens or 0) + count
        now, before = time.monotonic(), self.last_token
        if arriving or self.first_token is None:
            self.first_token, self.last_token = self.first_token or now, now
        if self.metrics is None:
            return
        if before is None:
            self.metrics.first_token(now - self.started, self.prompt_tokens or 0)
        self.metrics.tokens(count, now - before if arriving and before is not None else None)

    def end(self, status: int) -> None:
        """Writes the line and counts the request. Further calls do nothing."""
        if self._ended:
            return
        self._ended = True
        seconds = time.monotonic() - self.started
        _log.info(json.dumps(self._facts(status, seconds)))
        if self.metrics is None:
            return
        if self.finished is not None and self.outcome == self.finished.finish_reason:
            decoding = (self.last_token or 0.0) - (self.first_token or 0.0)
            self.metrics.finished(self.finished, seconds, decoding)
        else:
            self.metrics.failed(self.outcome or f"http_{status}")

    def _facts(self, status: int, seconds: float) -> dict[str, Any]:
        first = None if self.first_token is None else self.first_token - self.started
        return {
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": "error" if status >= 500 else "info",
            "event": "request",
            "id": self.id,
            "method": self.method[:20],
            "path": self.path[:200],
            "status": status,
            "total_ms": _ms(seconds),
            "first_token_ms": _ms(first),
            "queue_ms": _ms(self.queue_seconds),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "outcome": self.outcome,
            "stream": self.stream,
            "model": self.model,
        }


def current() -> RequestRecord:
    """The record of the current request."""
    record = g.record
    assert isinstance(record, RequestRecord)
    return record


def init_app(app: Flask) -> None:
    """Gives each request a record and an x-request-id."""
    app.before_request(_start_record)
    app.after_request(_add_request_id)


def _start_record() -> None:
    client_id = request.headers.get("x-request-id", "")
    request_id = client_id if _SAFE_ID.fullmatch(client_id) else new_id()
    g.record = RequestRecord(request_id, request.method, request.path, request.remote_addr or "")


def _add_request_id(response: Response) -> Response:
    record, status = current(), response.status_code
    response.headers["x-request-id"] = record.id
    if record.path.startswith(_PREFIXES):
        response.call_on_close(lambda: record.end(status))
    return response


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
