"""Who is answered when: a bounded queue, first come first served, as many answers at once as there are slots."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from app.contract.wire import Failed, Finished, Reply, Stats
from app.engine.answer import AnswerRequest, AnswerWriter
from app.engine.backend import Backend, NewToken
from app.engine.errors import NonFiniteLogits, RequestError, is_memory_error
from app.engine.formats import ChatFormat

SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1, 60
SHUTTING_DOWN = Failed(503, "shutting_down", "the service is shutting down")
ENGINE_OUT_OF_MEMORY = Failed(503, "engine_out_of_memory", "the engine ran out of memory and is being restarted")
ENGINE_FAILED = Failed(503, "engine_failed", "the engine failed and is being restarted")
NOT_FINITE = Failed(500, "nonfinite_logits", "the model's output is not finite for this conversation")
REQUEST_FAILED = Failed(500, "internal_error", "the engine failed on this request; its log says why")

log = logging.getLogger(__name__)


class Client(Protocol):
    """Where an admitted request's replies go."""

    def put(self, reply: Reply) -> None:
        """Hands one reply over; never blocks. Exactly one `Finished` or `Failed` comes, and comes last."""


@dataclass(frozen=True)
class _Waiting:
    """A request in the queue."""

    request: AnswerRequest
    client: Client
    since: float


@dataclass(frozen=True)
class _Running:
    """A request in a slot."""

    request: AnswerRequest
    client: Client
    writer: AnswerWriter
    started: float
    queue_seconds: float
    cached_tokens: int

    def finished(self, end: Finished) -> Finished:
        """With what the answer's writer can't know."""
        return replace(end, cached_tokens=self.cached_tokens, queue_seconds=self.queue_seconds)


class Scheduler:
    """Any thread submits and cancels; the engine's own thread runs the model in `run`."""

    def __init__(self, backend: Backend, chat: ChatFormat, queue_limit: int) -> None:
        self._backend = backend
        self._chat = chat
        self._queue_limit = queue_limit
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Running] = {}
        """By slot; changed by the engine's thread alone."""
        self._closed: Failed | None = None
        self._usual_seconds = 1.0
        """A moving average of what one answer takes."""

    def check_room(self) -> None:
        """Raises RequestError when a request would not be taken now; cheap, to be asked before any work is done."""
        with self._changed:
            if self._closed is not None:
                raise RequestError(self._closed)
            # Those that run have slots; a queue of none still takes requests while slots are free.
            if len(self._waiting) + len(self._running) >= self._backend.slots + self._queue_limit:
                raise RequestError(self._full())

    def submit(self, request: AnswerRequest, client: Client) -> None:
        """Queues a request. Raises RequestError when the queue is full or the engine is going down."""
        with self._changed:
            self.check_room()
            self._waiting.append(_Waiting(request, client, time.monotonic()))
            self._changed.notify_all()

    def cancel(self, request: AnswerRequest) -> None:
        """Takes a request out of the queue, or ends it within one step. Nothing more is owed to its client."""
        with self._changed:
            request.cancelled.set()
            self._waiting = deque(entry for entry in self._waiting if entry.request is not request)

    def close(self, reason: Failed = SHUTTING_DOWN) -> None:
        """Takes no more requests and fails those that wait; those that run finish, then `run` returns."""
        with self._changed:
            if self._closed is None:
                self._closed = reason
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for entry in waiting:
            entry.client.put(reason)

    def stats(self) -> Stats:
        """How busy the engine is; from any thread."""
        counters, slots = self._backend.counters, self._backend.slots
        with self._changed:
            running, waiting = len(self._running), len(self._waiting)
        return Stats(
            running=running,
            waiting=waiting,
            slots=slots,
            cache_tokens=self._backend.cache_tokens(),
            cache_limit_tokens=slots * self._backend.max_model_len,
            decode_steps=counters.decode_steps,
            decoded_tokens=counters.decoded_tokens,
            prefilled_tokens=counters.prefilled_tokens,
            reused_tokens=counters.reused_tokens,
        )

    def run(self) -> None:
        """Answers requests until closed.

        Raises:
            Exception: what ends the engine (memory, a broken GPU); everybody was told before.
        """
        try:
            while self._admit():
                for new in self._backend.step():
                    self._deliver(new)
        except Exception as error:
            reason = ENGINE_OUT_OF_MEMORY if is_memory_error(error) else ENGINE_FAILED
            self.close(reason)
            for running in self._running.values():
                running.client.put(reason)
            raise

    def _admit(self) -> bool:
        """Lets go of who left, fills free slots, and waits while there is nothing to do; False when all is over."""
        for slot in [slot for slot, running in self._running.items() if running.request.cancelled.is_set()]:
            self._release(slot, Failed(499, "cancelled", "the client went away"))
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._closed is not None)
            while self._waiting and len(self._running) < self._backend.slots:
                self._start(self._waiting[0])
                self._waiting.popleft()  # not before: should the start end the engine, it is told with the others
            return bool(self._running) or self._closed is None

    def _start(self, entry: _Waiting) -> None:
        """Gives a request a slot; one whose answer can't be read fails before."""
        try:
            writer = AnswerWriter(entry.request, self._chat)
        except Exception:
            log.exception("request %r failed", entry.request.request_id)
            entry.client.put(REQUEST_FAILED)
            return
        reused, now = self._backend.counters.reused_tokens, time.monotonic()
        slot = self._backend.start(entry.request.tokens())
        reused = self._backend.counters.reused_tokens - reused
        self._running[slot] = _Running(entry.request, entry.client, writer, now, now - entry.since, reused)

    def _deliver(self, new: NewToken) -> None:
        """Passes a token's replies on. What breaks only this request becomes its `Failed`."""
        running = self._running[new.slot]
        try:
            if isinstance(new.token, Exception):
                raise new.token
            replies = running.writer.push(new.token)
        except NonFiniteLogits:
            log.error("request %r: the model's output is not finite", running.request.request_id)
            return self._release(new.slot, NOT_FINITE)
        except Exception:
            log.exception("request %r failed", running.request.request_id)
            return self._release(new.slot, REQUEST_FAILED)
        for reply in replies:
            if isinstance(reply, Finished):
                return self._release(new.slot, running.finished(reply))
            running.client.put(reply)

    def _release(self, slot: int, end: Finished | Failed) -> None:
        self._backend.stop(slot)
        with self._changed:
            running = self._running.pop(slot)
            self._usual_seconds += 0.2 * (time.monotonic() - running.started - self._usual_seconds)
        running.client.put(end)

    def _full(self) -> Failed:
        seconds = round(self._usual_seconds * (len(self._waiting) / self._backend.slots + 1))
        retry = max(SHORTEST_RETRY_SECONDS, min(LONGEST_RETRY_SECONDS, seconds))
        text = f"{self._queue_limit} requests wait already, as many as may; try again in {retry} s"
        return Failed(429, "queue_full", text, retry_after_seconds=retry)
