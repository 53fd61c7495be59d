"""One request to the engine and its replies. Every failure is an `ApiError`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TypeVar

from app.contract.status import Status
from app.contract.wire import EngineRequest, Failed, Reply
from app.web import drain
from app.web.engine_client.client import (
    DrainOverError,
    EngineCall,
    EngineClient,
    EngineDiedError,
    EngineUnavailableError,
    RequestTooLongError,
    TooManyCallsError,
)
from app.web.http.errors import ApiError
from app.web.monitoring.request_log import RequestRecord
from app.web.monitoring.status_file import StatusFile, describe, seconds_left

T = TypeVar("T", bound=Reply)

ACCEPT_SECONDS = 60.0
"""How long the engine may take to its first reply."""


@dataclass(frozen=True)
class EngineTurn:
    """A request that was sent. The caller must close it."""

    call: EngineCall
    record: RequestRecord

    def close(self) -> None:
        """Cancels the request unless it has finished."""
        self.call.close()

    def next(self, seconds: float) -> Reply | None:
        """The next reply, recorded in `record`; None if none came for so long.

        Raises:
            ApiError: the engine failed or died, or the service is stopping.
            ClientLeftError: the client has disconnected.
        """
        try:
            reply = self.call.wait(seconds)
        except EngineDiedError as error:
            raise _engine_died() from error
        except DrainOverError as error:
            raise ApiError(503, "The service is stopping; the answer ends here.", "stopping") from error
        if isinstance(reply, Failed):
            raise _failed(reply)
        self.record.note(reply)
        return reply


def ask(
    status_file: StatusFile,
    engine: EngineClient,
    request: EngineRequest,
    kind: type[T],
    client: socket.socket | None,
    record: RequestRecord,
) -> T:
    """The engine's one reply, of type `kind`, to a request that needs no slot.

    Raises:
        ApiError: the engine refused it or is unavailable.
        ClientLeftError: the client has disconnected.
    """
    turn = begin(status_file, engine, request, client, record)
    try:
        reply = turn.next(ACCEPT_SECONDS)
    finally:
        turn.close()
    if reply is None:
        raise engine_silent()
    if not isinstance(reply, kind):
        raise _engine_died()
    return reply


def begin(
    status_file: StatusFile,
    engine: EngineClient,
    request: EngineRequest,
    client: socket.socket | None,
    record: RequestRecord,
) -> EngineTurn:
    """Sends a request to the engine. Its first reply says whether it is accepted.

    Raises:
        ApiError: the engine is unavailable, or the service is stopping.
    """
    status = status_file.read()
    if drain.has_begun():
        raise ApiError(503, "The service is stopping; it accepts no new requests.", "stopping", retry_after_seconds=5)
    if status.phase != "ready":
        raise not_ready(status)
    return EngineTurn(_open(engine, request, client), record)


def _open(engine: EngineClient, request: EngineRequest, client: socket.socket | None) -> EngineCall:
    try:
        return engine.call(request, client)
    except RequestTooLongError:
        raise ApiError(413, "The request is too long.", "request_too_large") from None
    except TooManyCallsError:
        raise ApiError(429, "Too many requests at the same time.", "too_many_requests", retry_after_seconds=2) from None
    except EngineUnavailableError as error:
        raise _engine_away() from error


def not_ready(status: Status) -> ApiError:
    """The 503 while no model is loaded: the phase, and what the user can do."""
    message = f"{describe(status)} (phase: {status.phase})"
    if status.phase == "failed":
        page = f" at {status.address}" if status.address else ""
        return ApiError(503, f"{message} See the page{page} for details.", "model_failed", retry_after_seconds=60)
    eta = seconds_left(status)
    wait = min(60.0, max(1.0, eta)) if eta is not None else 5.0
    return ApiError(503, message, "model_not_ready", retry_after_seconds=wait)


def _engine_away() -> ApiError:
    message = "The engine is unavailable; try again in a few seconds."
    return ApiError(503, message, "engine_away", retry_after_seconds=5)


def engine_silent() -> ApiError:
    """The 503 for an engine that accepts a connection and then sends nothing."""
    return ApiError(503, "The engine does not respond.", "engine_silent", retry_after_seconds=10)


def _engine_died() -> ApiError:
    message = "The engine died during the answer; see /api/status for the reason."
    return ApiError(503, message, "engine_died", retry_after_seconds=5)


def _failed(reply: Failed) -> ApiError:
    return ApiError(reply.status, reply.message, reply.code, reply.param, reply.retry_after_seconds)
