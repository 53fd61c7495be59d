"""Who is answered when: a bounded, fair queue, as many answers at once as there are slots, none for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from app.contract.status import BEAT_SECONDS
from app.contract.wire import Failed, Finished, Reply, Stats
from app.engine.backend.interface import Backend, NewToken
from app.engine.errors import NonFiniteLogits, RequestError, is_memory_error
from app.engine.formats.base import ChatFormat
from app.engine.serving.answer import AnswerRequest, AnswerWriter
from app.engine.serving.fair_queue import FairQueue

SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1, 60
SHUTTING_DOWN = Failed(503, "shutting_down", "the service is shutting down", retry_after_seconds=5)
ENGINE_OUT_OF_MEMORY = Failed(503, "engine_out_of_memory", "the engine ran out of memory and is being restarted")
ENGINE_FAILED = Failed(503, "engine_failed", "the engine failed and is being restarted")
NOT_FINITE = Failed(500, "nonfinite_logits", "the model's output is not finite for this conversation")
REQUEST_FAILED = Failed(500, "internal_error", "the engine failed on this request; its log says why")
CANCELLED = Failed(499, "cancelled", "the client went away")

log = logging.getLogger(__name__)


class Mailbox(Protocol):
    """Where an admitted request's replies go."""

    def put(self, reply: Reply) -> None:
        """Hands one reply over; never blocks. Exactly one `Finished` or `Failed` comes, and comes last."""


@dataclass(frozen=True)
class Limits:
    """How much may be asked of the engine."""

    queue: int
    """Requests that may wait for a slot."""
    request_seconds: float = 0.0
    """How long one may wait and run; 0 is for ever."""


@dataclass(frozen=True)
class _Entry:
    """A request that was taken in."""

    request: AnswerRequest
    mailbox: Mailbox
    since: float


@dataclass(frozen=True)
class _Running(_Entry):
    """A request in a slot."""

    writer: AnswerWriter
    started: float
    cached_tokens: int

    def finished(self, end: Finished) -> Finished:
        """With what the answer's writer can't know."""
        return replace(end, cached_tokens=self.cached_tokens, queue_seconds=self.started - self.since)


class Scheduler:
    """Any thread submits and cancels; the engine's own thread runs the model in `run`, and `beat` between its steps."""

    def __init__(
        self, backend: Backend, chat: ChatFormat, limits: Limits, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._backend = backend
        self._chat = chat
        self._limits = limits
        self._beat = beat
        self._changed = threading.Condition()
        self._waiting: FairQueue[_Entry] = FairQueue(limits.queue)
        self._running: dict[int, _Running] = {}
        """By slot; changed by the engine's thread alone."""
        self._closed: Failed | None = None
        self._usual_seconds = 1.0
        """A moving average of what one answer takes."""

    def check_room(self, client: str = "") -> None:
        """Raises RequestError when a request would not be taken now; cheap, to be asked before any work is done."""
        with self._changed:
            if self._closed is not None:
                raise RequestError(self._closed)
            # Those that run have slots; a queue of none still takes requests while slots are free.
            free = self._backend.slots - len(self._running)
            if len(self._waiting) >= self._waiting.limit + free:
                raise RequestError(self._full(f"{self._waiting.limit} requests wait already, as many as may"))
            most = self._waiting.client_limit
            if self._waiting.count(client) >= most + free:
                raise RequestError(self._full(f"{most} of your requests wait already, as many as one client's may"))

    def submit(self, request: AnswerRequest, mailbox: Mailbox) -> None:
        """Queues a request. Raises RequestError when the queue is full or the engine is going down."""
        with self._changed:
            self.check_room(request.client)
            self._waiting.add(request.client, _Entry(request, mailbox, time.monotonic()))
            self._changed.notify_all()

    def cancel(self, request: AnswerRequest) -> None:
        """Takes a request out of the queue, or ends it within one step. Nothing more is owed to its client."""
        with self._changed:
            request.cancelled.set()
            self._waiting.take(lambda entry: entry.request is request)

    def close(self, reason: Failed = SHUTTING_DOWN) -> None:
        """Takes no more requests and fails those that wait; those that run finish, then `run` returns."""
        with self._changed:
            if self._closed is None:
                self._closed = reason
            waiting = self._waiting.take(lambda _entry: True)
            self._changed.notify_all()
        for entry in waiting:
            entry.mailbox.put(reason)

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
                running.mailbox.put(reason)
            raise

    def _admit(self) -> bool:
        """Lets go of who left, fills free slots, and waits while there is nothing to do; False when all is over."""
        self._beat()
        for slot in [slot for slot, running in self._running.items() if running.request.cancelled.is_set()]:
            self._release(slot, CANCELLED)
        self._end_overdue()
        with self._changed:
            while not (self._waiting or self._running or self._closed is not None):
                self._changed.wait(BEAT_SECONDS)
                self._beat()
            while self._waiting and len(self._running) < self._backend.slots:
                self._start(self._waiting.first())
                self._waiting.pop()  # not before: should the start end the engine, it is told with the others
            return bool(self._running) or self._closed is None

    def _end_overdue(self) -> None:
        """Ends what has taken longer than a request may; while somebody waits or runs, this is asked at each step."""
        seconds = self._limits.request_seconds
        if not seconds:
            return
        earliest = time.monotonic() - seconds
        text = f"the answer was not complete after {seconds:g} s, the longest a request may take here"
        over = Failed(408, "time_limit_exceeded", f"{text} (GLM_REQUEST_SECONDS)")
        for slot in [slot for slot, running in self._running.items() if running.since < earliest]:
            self._release(slot, over)
        with self._changed:
            overdue = self._waiting.take(lambda entry: entry.since < earliest)
        for entry in overdue:
            entry.mailbox.put(over)

    def _start(self, entry: _Entry) -> None:
        """Gives a request a slot; one whose answer can't be read fails before."""
        try:
            writer = AnswerWriter(entry.request, self._chat)
        except Exception:
            log.exception("request %r failed", entry.request.request_id)
            entry.mailbox.put(REQUEST_FAILED)
            return
        before, now = self._backend.counters.reused_tokens, time.monotonic()
        slot = self._backend.start(entry.request.tokens())
        reused = self._backend.counters.reused_tokens - before
        self._running[slot] = _Running(entry.request, entry.mailbox, entry.since, writer, now, reused)

    def _deliver(self, new: NewToken) -> None:
        """Passes a token's replies on. What breaks only this request becomes its `Failed`."""
        running = self._running[new.slot]
        try:
            if isinstance(new.token, Exception):
                raise new.token
            replies = running.writer.push(new.token, new.logprobs)
        except NonFiniteLogits:
            log.error("request %r: the model's output is not finite", running.request.request_id)
            return self._release(new.slot, NOT_FINITE)
        except Exception:
            log.exception("request %r failed", running.request.request_id)
            return self._release(new.slot, REQUEST_FAILED)
        for reply in replies:
            if isinstance(reply, Finished):
                return self._release(new.slot, running.finished(reply))
            running.mailbox.put(reply)

    def _release(self, slot: int, end: Finished | Failed) -> None:
        self._backend.stop(slot)
        with self._changed:
            running = self._running.pop(slot)
            self._usual_seconds += 0.2 * (time.monotonic() - running.started - self._usual_seconds)
        running.mailbox.put(end)

    def _full(self, why: str) -> Failed:
        seconds = round(self._usual_seconds * (len(self._waiting) / self._backend.slots + 1))
        retry = max(SHORTEST_RETRY_SECONDS, min(LONGEST_RETRY_SECONDS, seconds))
        return Failed(429, "queue_full", f"{why}; try again in {retry} s", retry_after_seconds=retry)
