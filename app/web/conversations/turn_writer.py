"""Writes one answer, in a thread of its own: from the engine to whoever reads it, and to the store as it grows."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.contract.conversations import MessageError, MessageState, StoredMessage
from app.contract.wire import ChatRequest, Delta, Finished
from app.web import drain
from app.web.conversations.running_turn import RunningTurn
from app.web.engine_client.client import EngineClient
from app.web.engine_client.turn import begin
from app.web.http.errors import ApiError
from app.web.http.sse import says_something
from app.web.monitoring.request_log import RequestRecord
from app.web.monitoring.status_file import StatusFile

if TYPE_CHECKING:
    from app.web.store.store import Store

_LOOK_SECONDS = 0.25
"""How often a silent turn looks whether it is to stop."""
_STORE_SECONDS = 0.5
_STORE_SHARE = 0.1
"""Of a turn's time, at most: a long answer on a slow disk is stored less often."""
_LAST_STORE_SECONDS = 60.0
"""How long a finished answer waits for a disk that is full."""
_CUT_OFF = ("engine_died", "stopping")
_log = logging.getLogger("berth.web")


@dataclass(frozen=True)
class Ways:
    """What a writer works with."""

    status: StatusFile
    engine: EngineClient
    store: Store


class Writer:
    """One turn, from the request to the engine to the answer at rest."""

    def __init__(self, ways: Ways, turn: RunningTurn, request: ChatRequest, record: RequestRecord) -> None:
        self._ways, self._turn, self._request, self._record = ways, turn, request, record
        self._earlier = turn.message()
        self._next_store = time.monotonic() + _STORE_SECONDS
        self._grown = self._store_failed = False

    def run(self) -> StoredMessage:
        """Returns the answer when it stands still and is stored."""
        with drain.work():
            state, error = self._write()
            message = self._store_end(self._final(state, error))
        if error is not None or state == "stopped":
            self._record.outcome = error.code if error else "stopped"
        self._record.end(200 if error is None else 500)
        return message

    def _write(self) -> tuple[MessageState, MessageError | None]:
        try:
            return self._answer(), None
        except ApiError as error:
            code = error.code or "failed"
            return "interrupted" if code in _CUT_OFF else "failed", MessageError(code, error.message)
        except Exception:
            _log.exception("unforeseen error in a turn")
            message = "Something went wrong in the service; its log says what."
            return "failed", MessageError("internal_error", message)

    def _answer(self) -> MessageState:
        """Takes in all that the engine says; returns how it ended."""
        call = begin(self._ways.status, self._ways.engine, self._request, None, self._record)
        try:
            while not self._turn.stop_wanted.is_set():
                reply = call.next(_LOOK_SECONDS)
                if isinstance(reply, Delta) and says_something(reply):
                    self._turn.add(_clean(reply.text), _clean(reply.reasoning), reply.tool_calls)
                    self._grown = True
                if isinstance(reply, Finished):
                    return "length" if reply.finish_reason == "length" else "done"
                self._store_at_times()
            return "stopped"
        finally:
            call.close()

    def _store_at_times(self) -> None:
        started = time.monotonic()
        if not self._grown or started < self._next_store:
            return
        self._grown = False
        try:
            self._ways.store.messages.store(self._turn.message())
        except ApiError as error:
            if not self._store_failed:
                _log.error("an answer can't be stored while it grows: %s", error.message)
            self._store_failed = True
        now = time.monotonic()
        self._next_store = now + max(_STORE_SECONDS, (now - started) / _STORE_SHARE)

    def _final(self, state: MessageState, error: MessageError | None) -> StoredMessage:
        record, new = self._record, self._record.completion_tokens
        before = self._earlier.completion_tokens
        seconds = (record.last_token or 0.0) - (record.first_token or 0.0)
        return replace(
            self._turn.message(),
            state=state,
            error=error,
            prompt_tokens=record.prompt_tokens if record.prompt_tokens is not None else self._earlier.prompt_tokens,
            completion_tokens=before if new is None else (before or 0) + new,
            tokens_per_second=(new - 1) / seconds if new and seconds > 0 else self._earlier.tokens_per_second,
        )

    def _store_end(self, message: StoredMessage) -> StoredMessage:
        """Stores it, waiting for room where the disk is full; answers what is stored then."""
        deadline = time.monotonic() + _LAST_STORE_SECONDS
        while True:
            try:
                self._ways.store.messages.end(message, time.time())
                return message
            except ApiError as error:
                if drain.is_over() or time.monotonic() >= deadline or self._turn.stop_wanted.is_set():
                    _log.error("an answer's end is not stored: %s", error.message)
                    return replace(
                        message, state="interrupted", error=MessageError(error.code or "failed", error.message)
                    )
            time.sleep(_LOOK_SECONDS)


def _clean(text: str) -> str:
    """Text that every reader of UTF-8 takes: half of a surrogate pair becomes the mark for what can't be shown."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
