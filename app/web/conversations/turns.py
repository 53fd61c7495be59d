"""The turns that run: one writer for each answer, whoever listens. Whatever changes a conversation asks here first."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from app.contract.conversations import Conversation, NewTurn, StoredMessage, Turn
from app.web.conversations.prompt import chat_request
from app.web.conversations.running_turn import RunningTurn
from app.web.conversations.turn_writer import Ways, Writer
from app.web.engine_client.client import EngineClient
from app.web.http.errors import ApiError
from app.web.monitoring.request_log import RequestRecord, new_id
from app.web.monitoring.request_metrics import RequestMetrics
from app.web.monitoring.status_file import StatusFile
from app.web.store.lazy_store import Storage

_STOP_SECONDS = 10.0
"""How long a stopped turn may take to stand still: a moment, unless the disk does its work."""


class Turns:
    """Made once by the factory. `limit`: turns that may run at the same time; `engine` lets that many wait."""

    def __init__(
        self, storage: Storage, status: StatusFile, engine: EngineClient, metrics: RequestMetrics, limit: int
    ) -> None:
        self._storage, self._status, self._engine, self._metrics = storage, status, engine, metrics
        self._limit = limit
        self._starting = threading.Lock()
        self._running: dict[str, RunningTurn] = {}

    def start(self, conversation_id: str, new: NewTurn, client: str) -> Turn:
        """Stores the question and begins the answer; asked again, both as they are now.

        Raises:
            ApiError: see `store.begin`; 429 when too many run.
        """
        store = self._storage.open()
        with self._starting:
            running = new.answer_id in self._running
            if not running and len(self._running) >= self._limit:
                raise ApiError(429, "Too many answers are being written.", "too_many_turns", retry_after_seconds=5)
            begun = store.begin_turn(conversation_id, new, running=running)
            if begun.fresh:
                record = self._record(client)
                request = chat_request(record.id, begun.branch, begun.settings, go_on=new.continues is not None)
                turn = RunningTurn(conversation_id, begun.turn.answer)
                ways = Ways(self._status, self._engine, store)
                self._begin(Writer(ways, turn, replace(request, client=client), record), turn)
                return begun.turn
        return replace(begun.turn, answer=self.now(begun.turn.answer))

    def running(self, message_id: str) -> RunningTurn | None:
        """The turn that writes an answer now."""
        return self._running.get(message_id)

    def stop(self, message_id: str) -> StoredMessage:
        """Ends an answer where it is, and waits for that."""
        turn = self._running.get(message_id)
        if turn is None:
            return self.now(self._storage.open().messages.get(message_id))
        turn.stop_wanted.set()
        return turn.at_rest(_STOP_SECONDS)

    def now(self, message: StoredMessage) -> StoredMessage:
        """A stored message as it stands now. One that nobody writes any more was interrupted."""
        if message.state != "writing":
            return message
        if (turn := self._running.get(message.id)) is not None:
            return turn.message()
        with self._starting:  # it may just begin, or have come to its end
            if (turn := self._running.get(message.id)) is not None:
                return turn.message()
            stored = self._storage.open().messages.get(message.id)
        return replace(stored, state="interrupted") if stored.state == "writing" else stored

    def all_now(self, conversation: Conversation) -> Conversation:
        """A stored conversation with its messages as they stand now."""
        return replace(conversation, messages=tuple(self.now(message) for message in conversation.messages))

    def delete_conversation(self, conversation_id: str) -> None:
        """Stops its turns and deletes it."""
        store = self._storage.open()
        with self._starting:
            self._end(turn for turn in list(self._running.values()) if turn.conversation_id == conversation_id)
            store.conversations.delete(conversation_id)

    def delete_message(self, message_id: str) -> None:
        """Stops what is written below it and deletes it."""
        store = self._storage.open()
        with self._starting:
            below = store.messages.below(message_id)
            self._end(turn for turn in map(self._running.get, below) if turn is not None)
            store.messages.delete(message_id)

    def _begin(self, writer: Writer, turn: RunningTurn) -> None:
        answer = turn.message()
        self._running[answer.id] = turn

        def run() -> None:
            message = None
            try:
                message = writer.run()
            finally:
                # Whoever is told of its rest may have it go on at once.
                del self._running[answer.id]
                turn.rest(message or replace(turn.message(), state="interrupted"))

        try:
            threading.Thread(target=run, name="turn").start()
        except RuntimeError as error:
            del self._running[answer.id]
            turn.rest(replace(answer, state="interrupted"))
            raise ApiError(503, "No thread can be started for the answer.", "too_many_turns") from error

    def _record(self, client: str) -> RequestRecord:
        model = self._status.read().model_name
        return RequestRecord(new_id(), "POST", "/api/conversations/turns", client, self._metrics, model, stream=True)

    def _end(self, turns: Iterable[RunningTurn]) -> None:
        ending = list(turns)
        for turn in ending:
            turn.stop_wanted.set()
        for turn in ending:
            turn.at_rest(_STOP_SECONDS)
