"""A chat completion over HTTP: admitted, then the whole answer or its events."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from app.contract.wire import Accepted, Delta, Finished
from app.web.chat.request import ChatCall
from app.web.chat.response import Answer
from app.web.engine_client.client import ClientLeftError, EngineClient
from app.web.engine_client.turn import ACCEPT_SECONDS, EngineTurn, begin, engine_silent
from app.web.http.errors import ApiError
from app.web.http.sse import KEEP_ALIVE, error_event, says_something
from app.web.monitoring.request_log import RequestRecord
from app.web.monitoring.status_file import StatusFile

_KEEP_ALIVE_SECONDS = 10.0


@dataclass(frozen=True)
class Completion:
    """An admitted request. Whoever holds it closes it."""

    turn: EngineTurn
    one_call: bool = False
    """The answer ends where a second tool call would begin."""

    def close(self) -> None:
        """Cancels the request where it is not finished."""
        self.turn.close()

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
            self.turn.record.outcome = error.code or "failed"
            yield error_event(error)
        except ClientLeftError:
            return

    def _replies(self) -> Iterator[Delta | Finished | None]:
        """What is said, up to `Finished`; None for every long silence. Raises as `whole` does."""
        replies = self._said()
        return _up_to_second_call(replies, self.turn.record) if self.one_call else replies

    def _said(self) -> Iterator[Delta | Finished | None]:
        while True:
            reply = self.turn.next(_KEEP_ALIVE_SECONDS)
            if reply is None or isinstance(reply, Finished) or (isinstance(reply, Delta) and says_something(reply)):
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
        ApiError: it was refused, or there is no engine.
        ClientLeftError: the client did not wait so long.
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
    """Waits for `Accepted`, but not for ever: until then a refusal can still become a status line."""
    deadline = time.monotonic() + ACCEPT_SECONDS
    while not isinstance(turn.next(max(0.0, deadline - time.monotonic())), Accepted):
        if time.monotonic() >= deadline:
            raise engine_silent()


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
