"""Which request runs when: a bounded, fair queue, and as many answers at once as there are slots."""

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
from app.engine.serving.solo_pace import SoloPace

SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1, 60
SHUTTING_DOWN = Failed(503, "shutting_down", "the service is shutting down", retry_after_seconds=5)
ENGINE_OUT_OF_MEMORY = Failed(503, "engine_out_of_memory", "the engine ran out of memory and is being restarted")
ENGINE_FAILED = Failed(503, "engine_failed", "the engine failed and is being restarted")
NOT_FINITE = Failed(500, "nonfinite_logits", "the model's output is not finite for this conversation")
REQUEST_FAILED = Failed(500, "internal_error", "the engine failed on this request; its log gives the reason")
CANCELLED = Failed(499, "cancelled", "the client went away")

log = logging.getLogger(__name__)


class Mailbox(Protocol):
    """Receives an admitted request's replies."""

    def put(self, reply: Reply) -> None:
        """Takes one reply; never blocks. Exactly one `Finished` or `Failed` comes, and comes last."""


@dataclass(frozen=True)
class QueueLimits:
    """How many requests may wait, and for how long."""

    queue: int
    """Requests that may wait for a slot."""
    request_seconds: float = 0.0
    """How long a request may wait and run; 0 is without a limit."""


@dataclass(frozen=True)
class _QueuedRequest:
    """A request that waits for a slot."""

    request: AnswerRequest
    mailbox: Mailbox
    since: float


@dataclass(frozen=True)
class _RunningRequest(_QueuedRequest):
    """A request in a slot."""

    writer: AnswerWriter
    started: float
    cached_tokens: int

    def finished(self, end: Finished) -> Finished:
        """The reply with the numbers that the answer's writer does not know."""
        return replace(end, cached_tokens=self.cached_tokens, queue_seconds=self.started - self.since)


class Scheduler:
    """Any thread may submit and cancel. The engine's thread runs the model in `run`, and `beat` between its steps."""

    def __init__(
        self,
        backend: Backend,
        chat: ChatFormat,
        limits: QueueLimits,
        beat: Callable[[], None] = lambda: None,
        pace: SoloPace | None = None,
    ) -> None:
        self._backend = backend
        self._chat = chat
        self._limits = limits
        self._beat = beat
        self._pace = pace or SoloPace()
        self._changed = threading.Condition()
        self._waiting: FairQueue[_QueuedRequest] = FairQueue(limits.queue)
        self._running: dict[int, _RunningRequest] = {}
        """By slot; only the engine's thread changes it."""
        self._closed: Failed | None = None
        self._mean_seconds = 1.0
        """Moving average of an answer's duration."""

    def check_capacity(self, client: str = "") -> None:
        """Raises RequestError if a request would be refused now; cheap, so that it is called before any work."""
        with self._changed:
            if self._closed is not None:
                raise RequestError(self._closed)
            # Running requests have slots; a queue of size 0 still takes requests while slots are free.
            free = self._backend.slots - len(self._running)
            if len(self._waiting) >= self._waiting.limit + free:
                raise RequestError(self._queue_full(f"the queue is full ({self._waiting.limit} requests waiting)"))
            client_limit = self._waiting.client_limit
            if self._waiting.count(client) >= client_limit + free:
                text = f"{client_limit} of your requests are waiting, the most that one client may have"
                raise RequestError(self._queue_full(text))

    def submit(self, request: AnswerRequest, mailbox: Mailbox) -> None:
        """Queues a request. Raises RequestError if the queue is full or the engine is stopping."""
        with self._changed:
            self.check_capacity(request.client)
            self._waiting.add_request(request.client, _QueuedRequest(request, mailbox, time.monotonic()))
            self._changed.notify_all()

    def cancel(self, request: AnswerRequest) -> None:
        """Removes a request from the queue, or ends it within one step. Its client may get no more replies."""
        with self._changed:
            request.cancelled.set()
            self._waiting.remove_requests(lambda queued: queued.request is request)

    def close(self, reason: Failed = SHUTTING_DOWN) -> None:
        """Takes no more requests and fails those that wait. Running ones finish, then `run` returns."""
        with self._changed:
            if self._closed is None:
                self._closed = reason
            waiting = self._waiting.remove_requests(lambda _queued: True)
            self._changed.notify_all()
        for queued in waiting:
            queued.mailbox.put(reason)

    def stats(self) -> Stats:
        """How busy the engine is; any thread may call it."""
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
            Exception: an error that ends the engine (memory, a broken GPU); all requests have been failed.
        """
        try:
            while self._schedule():
                alone = next(iter(self._running.values())) if len(self._running) == 1 else None
                tokens = self._backend.step()
                self._pace.note_step(alone if len(tokens) == 1 else None, time.monotonic())
                for new in tokens:
                    self._deliver(new)
        except Exception as error:
            reason = ENGINE_OUT_OF_MEMORY if is_memory_error(error) else ENGINE_FAILED
            self.close(reason)
            for running in self._running.values():
                running.mailbox.put(reason)
            raise

    def _schedule(self) -> bool:
        """Ends cancelled and overdue requests, fills free slots, waits while idle; False if all is over."""
        self._beat()
        for slot in [slot for slot, running in self._running.items() if running.request.cancelled.is_set()]:
            self._release(slot, CANCELLED)
        self._end_overdue()
        with self._changed:
            while not (self._waiting or self._running or self._closed is not None):
                self._changed.wait(BEAT_SECONDS)
                self._beat()
            while self._waiting and len(self._running) < self._backend.slots:
                self._start(self._waiting.peek_request())
                self._waiting.pop_request()  # not earlier: if the start ends the engine, it is failed with the others
            return bool(self._running) or self._closed is None

    def _end_overdue(self) -> None:
        """Ends requests that exceed the time limit; checked before each step while any waits or runs."""
        seconds = self._limits.request_seconds
        if not seconds:
            return
        earliest = time.monotonic() - seconds
        text = f"the answer was not complete after {seconds:g} s, the longest that a request may take here"
        over = Failed(408, "time_limit_exceeded", f"{text} (GLM_REQUEST_SECONDS)")
        for slot in [slot for slot, running in self._running.items() if running.since < earliest]:
            self._release(slot, over)
        with self._changed:
            overdue = self._waiting.remove_requests(lambda queued: queued.since < earliest)
        for queued in overdue:
            queued.mailbox.put(over)

    def _start(self, queued: _QueuedRequest) -> None:
        """Gives a request a slot. If its answer can't be parsed, it fails before that."""
        try:
            writer = AnswerWriter(queued.request, self._chat)
        except Exception:
            log.exception("request %r failed", queued.request.request_id)
            queued.mailbox.put(REQUEST_FAILED)
            return
        before, now = self._backend.counters.reused_tokens, time.monotonic()
        slot = self._backend.add_request(queued.request.token_request())
        cached = self._backend.counters.reused_tokens - before
        self._running[slot] = _RunningRequest(queued.request, queued.mailbox, queued.since, writer, now, cached)

    def _deliver(self, new: NewToken) -> None:
        """Sends a token's replies. An error of this request alone becomes its `Failed`."""
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
        self._backend.finish_request(slot)
        with self._changed:
            running = self._running.pop(slot)
            self._mean_seconds += 0.2 * (time.monotonic() - running.started - self._mean_seconds)
        running.mailbox.put(end)

    def _queue_full(self, text: str) -> Failed:
        seconds = round(self._mean_seconds * (len(self._waiting) / self._backend.slots + 1))
        retry = max(SHORTEST_RETRY_SECONDS, min(LONGEST_RETRY_SECONDS, seconds))
        return Failed(429, "queue_full", f"{text}; try again in {retry} s", retry_after_seconds=retry)
