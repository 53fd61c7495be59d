"""The running turns: each has one writer and any number of readers. All changes to a conversation go through here."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from app.contract.conversations import Conversation, NewTurn, StoredMessage, Turn
from app.web.conversations.prompt import chat_request
from app.web.conversations.running_turn import RunningTurn
from app.web.conversations.turn_writer import TurnWriter
from app.web.engine_client.client import EngineClient
from app.web.http.errors import ApiError
from app.web.monitoring.request_log import RequestRecord, new_id
from app.web.monitoring.request_metrics import RequestMetrics
from app.web.monitoring.status_file import StatusFile
from app.web.store.lazy_store import LazyStore

_STOP_SECONDS = 10.0
"""How long to wait for a stopped turn to end. It takes a moment, unless the disk is slow."""


class Turns:
    """The factory makes one for each app. At most `limit` turns run at once; `engine` must allow as many calls."""

    def __init__(
        self, lazy_store: LazyStore, status: StatusFile, engine: EngineClient, metrics: RequestMetrics, limit: int
    ) -> None:
        self._lazy_store, self._status, self._engine, self._metrics = lazy_store, status, engine, metrics
        self._limit = limit
        self._starting = threading.Lock()
        self._running: dict[str, RunningTurn] = {}

    def start(self, conversation_id: str, new: NewTurn, client: str) -> Turn:
        """Stores the question and starts the answer. The same request again returns both as they are now.

        Raises:
            StoreError: as `store.turns.begin_turn`.
            ApiError: 429, too many turns are running.
        """
        store = self._lazy_store.open()
        with self._starting:
            running = new.answer_id in self._running
            if not running and len(self._running) >= self._limit:
                raise ApiError(429, "Too many answers are being written.", "too_many_turns", retry_after_seconds=5)
            started = store.begin_turn(conversation_id, new, running=running)
            if started.fresh:
                record = self._record(client)
                request = chat_request(record.id, started.branch, started.settings, continues=new.continues is not None)
                turn = RunningTurn(conversation_id, started.turn.answer)
                writer = TurnWriter(
                    status=self._status,
                    engine=self._engine,
                    store=store,
                    turn=turn,
                    request=replace(request, client=client),
                    record=record,
                )
                self._run(writer, turn)
                return started.turn
        return replace(started.turn, answer=self.current(started.turn.answer))

    def running(self, message_id: str) -> RunningTurn | None:
        """The running turn that writes an answer; None if none does."""
        return self._running.get(message_id)

    def stop(self, message_id: str) -> StoredMessage:
        """Stops an answer and waits until it has ended."""
        turn = self._running.get(message_id)
        if turn is None:
            return self.current(self._lazy_store.open().messages.get(message_id))
        turn.stop_requested.set()
        return turn.wait_ended(_STOP_SECONDS)

    def current(self, message: StoredMessage) -> StoredMessage:
        """A stored message in its current state. One that is `writing` without a writer was interrupted."""
        if message.state != "writing":
            return message
        if (turn := self._running.get(message.id)) is not None:
            return turn.message()
        with self._starting:  # it may have started or ended just now
            if (turn := self._running.get(message.id)) is not None:
                return turn.message()
            stored = self._lazy_store.open().messages.get(message.id)
        return replace(stored, state="interrupted") if stored.state == "writing" else stored

    def all_current(self, conversation: Conversation) -> Conversation:
        """A stored conversation with all messages in their current state."""
        return replace(conversation, messages=tuple(self.current(message) for message in conversation.messages))

    def delete_conversation(self, conversation_id: str) -> None:
        """Stops its turns and deletes it."""
        store = self._lazy_store.open()
        with self._starting:
            self._stop(turn for turn in list(self._running.values()) if turn.conversation_id == conversation_id)
            store.conversations.delete(conversation_id)

    def delete_message(self, message_id: str) -> None:
        """Stops the turns below a message, and deletes it with all messages below it."""
        store = self._lazy_store.open()
        with self._starting:
            ids = store.messages.below(message_id)
            self._stop(turn for turn in map(self._running.get, ids) if turn is not None)
            store.messages.delete(message_id)

    def _run(self, writer: TurnWriter, turn: RunningTurn) -> None:
        answer = turn.message()
        self._running[answer.id] = turn

        def run() -> None:
            message = None
            try:
                message = writer.run()
            finally:
                # First removed, then ended: a reader that sees the end may ask for a continuation at once.
                del self._running[answer.id]
                turn.end(message or replace(turn.message(), state="interrupted"))

        try:
            threading.Thread(target=run, name="turn").start()
        except RuntimeError as error:
            del self._running[answer.id]
            turn.end(replace(answer, state="interrupted"))
            raise ApiError(503, "No thread can be started for the answer.", "too_many_turns") from error

    def _record(self, client: str) -> RequestRecord:
        model = self._status.read().model_name
        return RequestRecord(new_id(), "POST", "/api/conversations/turns", client, self._metrics, model, stream=True)

    def _stop(self, turns: Iterable[RunningTurn]) -> None:
        stopping = list(turns)
        for turn in stopping:
            turn.stop_requested.set()
        for turn in stopping:
            turn.wait_ended(_STOP_SECONDS)
