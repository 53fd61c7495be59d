"""Writes one answer, in a thread of its own: from the engine to its readers, and to the store as it grows."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from app.contract.conversations import MessageError, MessageState, StoredMessage
from app.contract.wire import ChatRequest, Delta, Finished
from app.web import drain
from app.web.conversations.running_turn import RunningTurn
from app.web.engine_client.client import EngineClient
from app.web.engine_client.turn import begin
from app.web.http.errors import ApiError
from app.web.http.sse import has_content
from app.web.monitoring.request_log import RequestRecord
from app.web.monitoring.status_file import StatusFile
from app.web.store.errors import StoreError

if TYPE_CHECKING:
    from app.web.store.store import Store  # which imports SQLAlchemy: a tenth of a second and 13 MB

_POLL_SECONDS = 0.25
"""How often a turn without new tokens checks whether it was stopped."""
_STORE_SECONDS = 0.5
_STORE_SHARE = 0.1
"""The most of a turn's time that storing may take: on a slow disk a long answer is stored less often."""
_LAST_STORE_SECONDS = 60.0
"""How long a finished answer waits for a full disk."""
_INTERRUPTED = ("engine_died", "stopping")
"""Error codes after which an answer can be continued."""
_log = logging.getLogger("berth.web")


class TurnWriter:
    """One turn, from its request to the engine until its answer has ended and is stored."""

    def __init__(
        self,
        *,
        status: StatusFile,
        engine: EngineClient,
        store: Store,
        turn: RunningTurn,
        request: ChatRequest,
        record: RequestRecord,
    ) -> None:
        self._status, self._engine, self._store = status, engine, store
        self._turn, self._request, self._record = turn, request, record
        self._earlier = turn.message()
        self._next_store = time.monotonic() + _STORE_SECONDS
        self._grown = self._store_failed = False

    def run(self) -> StoredMessage:
        """Writes the answer and stores it. Returns it as it was stored."""
        with drain.work():
            state, error = self._write()
            message = self._store_end(self._final(state, error))
        if error is not None or state == "stopped":
            self._record.outcome = error.code if error else "stopped"
        self._record.end(200 if error is None else 500)
        return message

    def _write(self) -> tuple[MessageState, MessageError | None]:
        try:
            return self._receive(), None
        except ApiError as error:
            state: MessageState = "interrupted" if error.code in _INTERRUPTED else "failed"
            return state, MessageError(error.code or "failed", error.message)
        except Exception:
            _log.exception("unexpected error in a turn")
            message = "Something went wrong in the service; see its log."
            return "failed", MessageError("internal_error", message)

    def _receive(self) -> MessageState:
        """Adds the engine's replies to the answer. Returns how it ended."""
        call = begin(self._status, self._engine, self._request, None, self._record)
        try:
            while not self._turn.stop_requested.is_set():
                reply = call.next(_POLL_SECONDS)
                if isinstance(reply, Delta) and has_content(reply):
                    self._turn.add(_valid_unicode(reply.text), _valid_unicode(reply.reasoning), reply.tool_calls)
                    self._grown = True
                if isinstance(reply, Finished):
                    return "length" if reply.finish_reason == "length" else "done"
                self._store_if_due()
            return "stopped"
        finally:
            call.close()

    def _store_if_due(self) -> None:
        started = time.monotonic()
        if not self._grown or started < self._next_store:
            return
        self._grown = False
        try:
            self._store.messages.store(self._turn.message())
        except StoreError as error:
            if not self._store_failed:
                _log.error("a growing answer can't be stored: %s", error.message)
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
        """Stores the ended answer, and waits for space if the disk is full. Returns it as interrupted if that fails."""
        deadline = time.monotonic() + _LAST_STORE_SECONDS
        while True:
            try:
                self._store.messages.end(message, time.time())
                return message
            except StoreError as error:
                if drain.is_over() or time.monotonic() >= deadline or self._turn.stop_requested.is_set():
                    _log.error("the end of an answer is not stored: %s", error.message)
                    return replace(message, state="interrupted", error=MessageError(error.code, error.message))
            time.sleep(_POLL_SECONDS)


def _valid_unicode(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD, so that it can be encoded as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
