"""One chat request on its way through the engine: from its admission to its last word."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from app.contract.status import Status
from app.contract.wire import (
    Accepted,
    Delta,
    EngineRequest,
    Failed,
    Finished,
    Reply,
)
from app.web import drain
from app.web.chat_reply import Answer
from app.web.chat_request import ChatCall
from app.web.engine_client import (
    ClientLeftError,
    DrainOverError,
    EngineCall,
    EngineClient,
    EngineDiedError,
    EngineUnavailableError,
    RequestTooLongError,
    TooManyCallsError,
)
from app.web.http.errors import ApiError
from app.web.http.sse import KEEP_ALIVE, error_event, says_something
from app.web.request_log import RequestRecord
from app.web.services import Services
from app.web.status_file import StatusFile, describe

T = TypeVar("T", bound=Reply)

_ACCEPT_SECONDS = 60.0
_KEEP_ALIVE_SECONDS = 10.0


@dataclass(frozen=True)
class Turn:
    """An admitted request. Whoever holds it closes it."""

    call: EngineCall
    record: RequestRecord
    one_call: bool = False
    """The answer ends where a second tool call would begin."""

    def close(self) -> None:
        """Cancels the request where it is not finished."""
        self.call.close()

    def whole(self) -> tuple[list[Delta], Finished]:
        """Waits for the complete answer.

        Raises:
            ApiError: the engine failed or died, or the service is stopping.
            ClientLeftError: nobody waits for the answer any more.
        """
        deltas: list[Delta] = []
        for reply in self._replies():
            if isinstance(reply, Finished):
                return deltas, reply
            if reply is not None:
                deltas.append(reply)
        raise AssertionError("replies end with Finished or raise")

    def events(self, answer: Answer) -> Iterator[bytes]:
        """The answer as server-sent events, with a comment line at first and whenever it is silent for long."""
        yield KEEP_ALIVE  # the status line goes out now; how the first chunk looks depends on what comes
        opened = False
        try:
            for reply in self._replies():
                if reply is None:
                    yield KEEP_ALIVE
                    continue
                delta = reply if isinstance(reply, Delta) else None
                if not opened:
                    opened = True
                    yield answer.first(delta)
                yield answer.last(reply) if isinstance(reply, Finished) else answer.delta(reply)
        except ApiError as error:
            self.record.outcome = error.code or "failed"
            yield error_event(error)
        except ClientLeftError:
            return

    def _replies(self) -> Iterator[Delta | Finished | None]:
        """What is said, up to `Finished`; None for every long silence. Raises as `whole` does."""
        replies = self._said()
        return _up_to_second_call(replies, self.record) if self.one_call else replies

    def _said(self) -> Iterator[Delta | Finished | None]:
        while True:
            reply = self.next(_KEEP_ALIVE_SECONDS)
            if reply is None or isinstance(reply, Finished) or (isinstance(reply, Delta) and says_something(reply)):
                yield reply
            if isinstance(reply, Finished):
                return

    def next(self, seconds: float) -> Reply | None:
        """The next reply, counted; None when there was none for so long. Raises as `whole` does."""
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


def admit(services: Services, chat: ChatCall, client: socket.socket | None, record: RequestRecord) -> Turn:
    """Sends a request to the engine and waits until it is accepted.

    Raises:
        ApiError: it was refused, or there is no engine.
        ClientLeftError: the client did not wait so long.
    """
    asked = dataclasses.replace(chat.request, client=record.client)
    turn = begin(services.status, services.engine, asked, client, record)
    turn = dataclasses.replace(turn, one_call=chat.one_call)
    try:
        await_acceptance(turn)
    except BaseException:
        turn.close()
        raise
    return turn


def await_acceptance(turn: Turn) -> None:
    """Waits for `Accepted`, but not for ever: until then a refusal can still become a status line."""
    deadline = time.monotonic() + _ACCEPT_SECONDS
    while not isinstance(turn.next(max(0.0, deadline - time.monotonic())), Accepted):
        if time.monotonic() >= deadline:
            raise _engine_silent()


def _up_to_second_call(
    replies: Iterator[Delta | Finished | None], record: RequestRecord
) -> Iterator[Delta | Finished | None]:
    """Ends the answer where a second tool call begins; closing the turn then cancels the rest."""
    for reply in replies:
        if not (isinstance(reply, Delta) and any(call.index for call in reply.tool_calls)):
            yield reply
            continue
        rest = dataclasses.replace(reply, tool_calls=tuple(call for call in reply.tool_calls if not call.index))
        if says_something(rest):
            yield rest
        finished = Finished("tool_calls", record.prompt_tokens or 0, record.completion_tokens or 0)
        record.note(finished)
        yield finished
        return


def ask(
    services: Services, request: EngineRequest, kind: type[T], client: socket.socket | None, record: RequestRecord
) -> T:
    """The engine's one reply, of type `kind`, to a question that needs no slot.

    Raises:
        ApiError: it was refused, or there is no engine.
        ClientLeftError: the client did not wait so long.
    """
    turn = begin(services.status, services.engine, request, client, record)
    try:
        reply = turn.next(_ACCEPT_SECONDS)
    finally:
        turn.close()
    if reply is None:
        raise _engine_silent()
    if not isinstance(reply, kind):
        raise _engine_died()
    return reply


def begin(
    status_file: StatusFile,
    engine: EngineClient,
    request: EngineRequest,
    client: socket.socket | None,
    record: RequestRecord,
) -> Turn:
    """Sends a request to the engine; whether it is accepted is its first reply.

    Raises:
        ApiError: there is no engine, or the service is stopping.
    """
    status = status_file.read()
    if drain.has_begun():
        raise ApiError(503, "The service is stopping; it takes no new requests.", "stopping", retry_after_seconds=5)
    if status.phase != "ready":
        raise not_ready(status)
    return Turn(_open(engine, request, client), record)


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
    """The 503 while there is no model to talk to: the phase, and what the user can do."""
    message = f"{describe(status)} (phase: {status.phase})"
    if status.phase == "failed":
        page = f" at {status.address}" if status.address else ""
        return ApiError(503, f"{message} The page{page} shows more.", "model_failed", retry_after_seconds=60)
    eta = status.progress.eta_seconds if status.progress else None
    wait = min(60.0, max(1.0, eta)) if eta is not None else 5.0
    return ApiError(503, message, "model_not_ready", retry_after_seconds=wait)


def _engine_away() -> ApiError:
    return ApiError(503, "The engine is not there just now; try again soon.", "engine_away", retry_after_seconds=5)


def _engine_silent() -> ApiError:
    return ApiError(503, "The engine does not answer.", "engine_silent", retry_after_seconds=10)


def _engine_died() -> ApiError:
    return ApiError(503, "The engine died in mid-answer; /api/status says why.", "engine_died", retry_after_seconds=5)


def _failed(reply: Failed) -> ApiError:
    return ApiError(reply.status, reply.message, reply.code, reply.param, reply.retry_after_seconds)
