"""The queue and the answers that run at once, over a backend that counts instead of computing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from app.contract.wire import Delta, Failed, Finished, Reply
from app.engine.backend.interface import Counters, NewToken, TokenRequest, no_report
from app.engine.errors import NonFiniteLogits, RequestError, is_broken_device, is_memory_error
from app.engine.formats.base import Prompt, PromptRequest
from app.engine.formats.parsing.answer_parser import PlainParser, TokenParser
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.sampling import SamplingDefaults
from app.engine.serving.answer import AnswerRequest
from app.engine.serving.scheduler import QueueLimits, Scheduler
from app.engine.serving.solo_pace import FEWEST_STEPS, SoloPace
from tests.tokens import GREEDY

END = 0
UNREADABLE = 13
"""A prompt that ends so has no parser."""


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


class CountingBackend:
    """Counts up from the prompt's last id, a token a step; `behave` may raise at each token.

    While `opened` is not set its steps give nothing, as those of a long prompt do.
    """

    max_model_len = 100

    def __init__(self, slots: int = 1, behave: Callable[[int], None] = lambda _token: None) -> None:
        self.slots = slots
        self.counters = Counters()
        self.behave = behave
        self.opened = threading.Event()
        self.opened.set()
        self.running: dict[int, int] = {}
        """The last token by slot."""
        self.started: list[int] = []
        """The prompt's last id of each sequence, in order."""
        self.steps: list[tuple[int, ...]] = []
        """The slots that each step gave a token."""
        self.closed = 0

    def add_request(self, request: TokenRequest) -> int:
        slot = min(set(range(self.slots)) - self.running.keys())
        self.running[slot] = request.prompt_ids[-1]
        self.started.append(request.prompt_ids[-1])
        return slot

    def step(self) -> Sequence[NewToken]:
        if not self.opened.wait(0.001):
            return ()
        self.steps.append(tuple(self.running))
        return [NewToken(slot, self._next(slot)) for slot in list(self.running)]

    def finish_request(self, slot: int) -> None:
        del self.running[slot]
        self.closed += 1

    def cache_tokens(self) -> int:
        return len(self.running)

    def profile_costs(self) -> Sequence[float]:
        return ()

    def profile_run(self, step_done: Callable[[], None] = no_report) -> None:
        """Nothing to run."""

    def _next(self, slot: int) -> int | Exception:
        token = self.running[slot] = self.running[slot] + 1
        try:
            self.behave(token)
        except Exception as error:
            if is_memory_error(error) or is_broken_device(error):
                raise
            return error
        return END if token == 50 else token


class LetterFormat:
    stop_ids = frozenset({END})
    defaults = SamplingDefaults()
    id_limit = 100

    def prompt(self, request: PromptRequest) -> Prompt:
        return Prompt((len(request.messages),))

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> TokenParser:
        if prompt_ids[-1] == UNREADABLE:
            raise KeyError(UNREADABLE)
        return TokenParser(lambda: IncrementalDetokeniser(self.decode), PlainParser())

    def token_bytes(self, token: int) -> bytes:
        return f"{token},".encode()

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(int(token) for token in text.split(",") if token)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f"{token}," for token in ids)


@dataclass
class Box:
    replies: list[Reply] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def put(self, reply: Reply) -> None:
        self.replies.append(reply)
        self.started.set()
        if isinstance(reply, (Finished, Failed)):
            self.ended.set()

    def end(self) -> Finished | Failed:
        assert self.ended.wait(5)
        ends = [reply for reply in self.replies if isinstance(reply, (Finished, Failed))]
        assert ends == self.replies[-1:]
        return replace(ends[0], queue_seconds=0.0) if isinstance(ends[0], Finished) else ends[0]

    def text(self) -> str:
        return "".join(reply.text for reply in self.replies if isinstance(reply, Delta))


class Running:
    """A scheduler whose `run` has a thread; `error` is what ended it."""

    def __init__(
        self,
        backend: CountingBackend,
        queue_limit: int = 2,
        request_seconds: float = 0.0,
        pace: SoloPace | None = None,
    ) -> None:
        self.beats = 0
        limits = QueueLimits(queue_limit, request_seconds)
        self.scheduler = Scheduler(backend, LetterFormat(), limits, self._beat, pace)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _beat(self) -> None:
        self.beats += 1

    def _run(self) -> None:
        try:
            self.scheduler.run()
        except Exception as error:
            self.error = error

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.scheduler.close()
        self.thread.join(5)
        assert not self.thread.is_alive()

    def ask(
        self, last_id: int = 40, limit: int = 100, stop: tuple[str, ...] = (), client: str = ""
    ) -> tuple[AnswerRequest, Box]:
        request, box = AnswerRequest("r", (last_id,), GREEDY, limit, stop, client=client), Box()
        self.scheduler.submit(request, box)
        return request, box


def blocked_backend(slots: int = 1, behave: Callable[[int], None] = lambda _token: None) -> CountingBackend:
    """A backend that gives nothing until it is opened."""
    backend = CountingBackend(slots, behave)
    backend.opened.clear()
    return backend


def test_answers_end_at_a_stop_id_a_stop_string_or_the_limit() -> None:
    backend = CountingBackend()
    with Running(backend) as running:
        _, box = running.ask(46)
        assert box.end() == Finished("stop", 1, 4)
        assert box.text() == "47,48,49,"
        _, box = running.ask(46, limit=2)
        assert box.end() == Finished("length", 1, 2)
        _, box = running.ask(44, stop=("7,4",))
        assert box.end() == Finished("stop", 1, 4)
        assert box.text() == "45,46,4"
    assert backend.closed == 3


def test_how_busy_it_is() -> None:
    backend = blocked_backend(2)
    with Running(backend) as running:
        boxes = [running.ask(limit=3)[1] for _ in range(4)]
        wait_until(lambda: running.scheduler.stats().running == 2)
        stats = running.scheduler.stats()
        assert (stats.waiting, stats.slots, stats.cache_tokens, stats.cache_limit_tokens) == (2, 2, 2, 200)
        backend.opened.set()
        for box in boxes:
            box.end()
        wait_until(lambda: running.scheduler.stats().running == 0)
        assert running.scheduler.stats().waiting == 0
    waits = [end.queue_seconds for box in boxes if isinstance(end := box.replies[-1], Finished)]
    assert len(waits) == 4
    assert max(waits[:2]) < min(waits[2:])


def test_held_back_text_is_shown_at_the_end() -> None:
    with Running(CountingBackend()) as running:
        _, box = running.ask(47, stop=(",49,x",))
        assert box.end() == Finished("stop", 1, 3)
        assert box.text() == "48,49,"


def test_first_come_first_served_and_a_full_queue_says_when() -> None:
    backend = blocked_backend()
    with Running(backend) as running:
        _, first = running.ask(40)
        wait_until(lambda: len(backend.running) == 1)
        boxes = [running.ask(30)[1], running.ask(20)[1]]
        with pytest.raises(RequestError) as caught:
            running.ask()
        assert (caught.value.reply.status, caught.value.reply.code) == (429, "queue_full")
        assert caught.value.reply.retry_after_seconds
        backend.opened.set()
        for box in (first, *boxes):
            assert isinstance(box.end(), Finished)
        assert isinstance(running.ask()[1].end(), Finished)
    assert backend.started == [40, 30, 20, 40]


def test_who_queues_many_does_not_starve_who_queues_one() -> None:
    backend = blocked_backend()
    with Running(backend, queue_limit=8) as running:
        boxes = [running.ask(1, limit=1, client="first")[1]]
        wait_until(lambda: len(backend.running) == 1)
        boxes += [running.ask(number, limit=1, client="greedy")[1] for number in (31, 32, 33, 34, 35, 36)]
        with pytest.raises(RequestError) as caught:
            running.ask(client="greedy")
        assert (caught.value.reply.status, caught.value.reply.code) == (429, "queue_full")
        boxes += [running.ask(number, limit=1, client="modest")[1] for number in (21, 22)]
        with pytest.raises(RequestError) as caught:
            running.ask(client="late")
        assert caught.value.reply.code == "queue_full"
        backend.opened.set()
        for box in boxes:
            assert isinstance(box.end(), Finished)
    assert backend.started == [1, 31, 21, 32, 22, 33, 34, 35, 36]


@pytest.mark.parametrize("slots", [1, 2])
def test_a_request_that_takes_too_long_ends_where_it_is(slots: int) -> None:
    """The one that runs and the one that waits, or both that run; earlier text stays."""
    backend = blocked_backend(slots)
    with Running(backend, request_seconds=0.3) as running:
        boxes = [running.ask()[1] for _ in range(2)]
        for box in boxes:
            end = box.end()
            assert isinstance(end, Failed)
            assert (end.status, end.code) == (408, "time_limit_exceeded")
            assert "0.3 s" in end.message
        assert running.scheduler.stats().running == running.scheduler.stats().waiting == 0
        backend.opened.set()
        assert isinstance(running.ask(46)[1].end(), Finished)


def test_the_pace_of_an_answer_is_measured_while_it_runs_alone() -> None:
    backend, pace = blocked_backend(slots=2), SoloPace()
    with Running(backend, pace=pace) as running:
        boxes = [running.ask(50 - FEWEST_STEPS - 2)[1] for _ in range(2)]
        wait_until(lambda: len(backend.running) == 2)
        backend.opened.set()
        for box in boxes:
            box.end()
        assert pace.tokens_per_second() is None, "both ran together"
        running.ask(50 - FEWEST_STEPS - 2)[1].end()
        assert pace.tokens_per_second() is not None


def test_the_heart_beats_idle_and_busy() -> None:
    backend = blocked_backend()
    with Running(backend) as running:
        running.ask()
        wait_until(lambda: len(backend.running) == 1)
        busy = running.beats
        wait_until(lambda: running.beats > busy)
        backend.opened.set()
        wait_until(lambda: not backend.running)
        idle = running.beats
        wait_until(lambda: running.beats > idle, seconds=30)


def test_a_queue_of_none_still_answers_one_a_slot() -> None:
    for slots in (1, 3):
        backend = blocked_backend(slots)
        with Running(backend, queue_limit=0) as running:
            boxes = [running.ask()[1] for _ in range(slots)]
            with pytest.raises(RequestError):
                running.ask()
            backend.opened.set()
            for box in boxes:
                box.end()


def test_as_many_run_at_once_as_there_are_slots_in_the_order_they_came() -> None:
    backend = blocked_backend(slots=3)
    with Running(backend, queue_limit=2) as running:
        boxes = [running.ask(last_id, limit)[1] for last_id, limit in ((10, 9), (20, 2), (30, 4), (40, 5), (60, 1))]
        with pytest.raises(RequestError) as caught:
            running.ask()
        assert caught.value.reply.code == "queue_full"
        wait_until(lambda: len(backend.running) == 3)
        assert backend.started == [10, 20, 30]
        backend.opened.set()
        assert [box.end() for box in boxes] == [Finished("length", 1, count) for count in (9, 2, 4, 5, 1)]
    assert [box.text() for box in boxes[1:4]] == ["21,22,", "31,32,33,34,", "41,42,43,44,45,"]
    assert backend.started == [10, 20, 30, 40, 60]
    # The fourth joins when the second ends, the fifth when the third does.
    assert [sorted(slots) for slots in backend.steps] == [[0, 1, 2]] * 5 + [[0, 1]] * 2 + [[0]] * 2


def test_cancelling_frees_a_slot_within_a_step_and_forgets_the_waiting() -> None:
    backend = blocked_backend(slots=2)
    with Running(backend, queue_limit=3) as running:
        first, gone = running.ask(10)
        _, second = running.ask(20, limit=3)
        third, waiting = running.ask(30)
        _, fourth = running.ask(40, limit=3)
        wait_until(lambda: len(backend.running) == 2)
        running.scheduler.cancel(third)
        running.scheduler.cancel(first)
        wait_until(lambda: backend.started == [10, 20, 40])
        assert not backend.steps, "not a token was needed for that"
        backend.opened.set()
        assert second.end() == fourth.end() == Finished("length", 1, 3)
    assert second.text() == "21,22,23,"
    assert waiting.replies == []
    assert gone.text() == ""


def test_closing_finishes_the_running_and_refuses_the_others() -> None:
    backend = blocked_backend(slots=2)
    with Running(backend) as running:
        boxes = [running.ask(30)[1], running.ask(20)[1]]
        wait_until(lambda: len(backend.running) == 2)
        _, third = running.ask()
        running.scheduler.close()
        refused = third.end()
        assert isinstance(refused, Failed)
        assert refused.code == "shutting_down"
        with pytest.raises(RequestError):
            running.ask()
        backend.opened.set()
        assert [box.end() for box in boxes] == [Finished("stop", 1, 20), Finished("stop", 1, 30)]
    assert running.error is None
    assert backend.closed == 2


@pytest.mark.parametrize(
    ("error", "status", "code", "log"),
    [
        (NonFiniteLogits(), 500, "nonfinite_logits", "not finite"),
        (KeyError("a programming error"), 500, "internal_error", "KeyError"),
    ],
)
def test_what_goes_wrong_with_one_request_fails_that_alone(
    caplog: pytest.LogCaptureFixture, error: Exception, status: int, code: str, log: str
) -> None:
    def break_at_45(token: int) -> None:
        if token == 45:
            raise error

    backend = blocked_backend(2, break_at_45)
    with Running(backend) as running:
        _, broken = running.ask(40)
        _, other = running.ask(20, limit=20)
        wait_until(lambda: len(backend.running) == 2)
        backend.opened.set()
        end = broken.end()
        assert isinstance(end, Failed)
        assert (end.status, end.code) == (status, code)
        assert broken.text() == "41,42,43,44,"
        assert other.end() == Finished("length", 1, 20)
        assert other.text() == "".join(f"{token}," for token in range(21, 41))
        assert isinstance(running.ask(46)[1].end(), Finished)
    assert backend.closed == 3
    assert log in caplog.text


def test_an_answer_that_cannot_be_read_fails_before_it_takes_a_slot(caplog: pytest.LogCaptureFixture) -> None:
    with Running(CountingBackend()) as running:
        end = running.ask(UNREADABLE)[1].end()
        assert isinstance(end, Failed)
        assert end.code == "internal_error"
        assert isinstance(running.ask(46)[1].end(), Finished)
    assert running.error is None
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "engine_out_of_memory"),
        (MemoryError(), "engine_out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "engine_out_of_memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "engine_failed"),
    ],
)
def test_what_breaks_the_engine_is_told_to_everybody_and_ends_it(error: Exception, code: str) -> None:
    def fail(_token: int) -> None:
        raise error

    backend = blocked_backend(2, fail)
    with Running(backend) as running:
        boxes = [running.ask()[1] for _ in range(3)]
        wait_until(lambda: len(backend.running) == 2)
        backend.opened.set()
        for box in boxes:
            end = box.end()
            assert isinstance(end, Failed)
            assert (end.status, end.code) == (503, code)
        running.thread.join(5)
        with pytest.raises(RequestError):
            running.ask()
    assert running.error is error


def test_a_request_whose_start_ends_the_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CountingBackend(2)

    def fail(_request: TokenRequest) -> int:
        raise MemoryError

    monkeypatch.setattr(backend, "add_request", fail)
    with Running(backend) as running:
        end = running.ask()[1].end()
        assert isinstance(end, Failed)
        assert (end.status, end.code) == (503, "engine_out_of_memory")


def test_other_runtime_errors_are_no_memory_errors() -> None:
    assert not is_memory_error(RuntimeError("shapes cannot be multiplied"))
    assert not is_memory_error(ValueError("CUDA out of memory"))


def wait_until(true: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)
