"""A chat completion over HTTP: admission, then the whole answer or its events."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from app.contract.wire import Accepted, Delta, Finished
from app.web.chat.request import ChatCall
from app.web.chat.response import ChatResponse
from app.web.engine_client.client import ClientLeftError, EngineClient
from app.web.engine_client.turn import ACCEPT_SECONDS, EngineTurn, begin, engine_silent
from app.web.http.errors import ApiError
from app.web.http.sse import KEEP_ALIVE, error_event, has_content
from app.web.monitoring.request_log import RequestRecord
from app.web.monitoring.status_file import StatusFile

KEEP_ALIVE_SECONDS = 10.0
"""How long a stream may be silent before a comment line is sent."""


@dataclass(frozen=True)
class Completion:
    """An admitted request. The caller must close it."""

    turn: EngineTurn
    one_call: bool = False
    """The answer ends before a second tool call."""

    def close(self) -> None:
        """Cancels the request unless it has finished."""
        self.turn.close()

    def whole(self) -> tuple[list[Delta], Finished]:
        """Waits for the complete answer.

        Raises:
            ApiError: the engine failed or died, or the service is stopping.
            ClientLeftError: the client has disconnected.
        """
        deltas: list[Delta] = []
        for reply in self._replies():
            if isinstance(reply, Finished):
                return deltas, reply
            if reply is not None:
                deltas.append(reply)
        raise AssertionError("replies end with Finished or raise")

    def events(self, response: ChatResponse) -> Iterator[bytes]:
        """The answer as server-sent events. A comment line comes first, and after each long silence."""
        yield KEEP_ALIVE  # sends the status line now; the first chunk depends on the first reply
        started = False
        try:
            for reply in self._replies():
                if reply is None:
                    yield KEEP_ALIVE
                    continue
                delta = reply if isinstance(reply, Delta) else None
                if not started:
                    started = True
                    yield response.first(delta)
                yield response.last(reply) if isinstance(reply, Finished) else response.delta(reply)
        except ApiError as error:
            self.turn.record.outcome = error.code or "failed"
            yield error_event(error)
        except ClientLeftError:
            return

    def _replies(self) -> Iterator[Delta | Finished | None]:
        """All replies up to `Finished`; None for each long silence. Raises as `whole` does."""
        replies = self._all_replies()
        return _up_to_second_call(replies, self.turn.record) if self.one_call else replies

    def _all_replies(self) -> Iterator[Delta | Finished | None]:
        while True:
            reply = self.turn.next(KEEP_ALIVE_SECONDS)
            if reply is None or isinstance(reply, Finished) or (isinstance(reply, Delta) and has_content(reply)):
                yield reply
            if isinstance(reply, Finished):
                return


def admit(
    status_file: StatusFile,
    engine: EngineClient,
    chat: ChatCall,
    client: socket.socket | None,
    record: RequestRecord,
) -> Completion:
    """Sends a request to the engine and waits until it is accepted.

    Raises:
        ApiError: the engine refused it or is unavailable.
        ClientLeftError: the client has disconnected.
    """
    request = dataclasses.replace(chat.request, client=record.client)
    turn = begin(status_file, engine, request, client, record)
    try:
        await_acceptance(turn)
    except BaseException:
        turn.close()
        raise
    return Completion(turn, chat.one_call)


def await_acceptance(turn: EngineTurn) -> None:
    """Waits for `Accepted`, for ACCEPT_SECONDS at most. Until then a refusal can still become a status line."""
    deadline = time.monotonic() + ACCEPT_SECONDS
    while not isinstance(turn.next(max(0.0, deadline - time.monotonic())), Accepted):
        if time.monotonic() >= deadline:
            raise engine_silent()


def _up_to_second_call(
    replies: Iterator[Delta | Finished | None], record: RequestRecord
) -> Iterator[Delta | Finished | None]:
    """Ends the answer before a second tool call. Closing the turn then cancels the rest."""
    for reply in replies:
        if not (isinstance(reply, Delta) and any(call.index for call in reply.tool_calls)):
            yield reply
            continue
        rest = dataclasses.replace(reply, tool_calls=tuple(call for call in reply.tool_calls if not call.index))
        if has_content(rest):
            yield rest
        finished = Finished("tool_calls", record.prompt_tokens or 0, record.completion_tokens or 0)
        record.note(finished)
        yield finished
        return
