"""The engine's process and socket, on a random checkpoint of half a million parameters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.contract import exits
from app.contract.plan import Dtype, Precision
from app.contract.status import EngineDown, Loading, ProofStep, Proving, Ready
from app.contract.wire import LINE_LIMIT_BYTES, Accepted, Delta, Failed, Finished, Message, SamplingParams
from tests.processes.engine import PLANNED_BYTES, EngineProcess, last_of, make_tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def endless(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without stop ids, so that an answer lasts until something ends it."""
    folder = copy_of(checkpoint, tmp_path_factory.mktemp("endless"))
    for name in ("config.json", "generation_config.json"):
        fields = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(fields | {"eos_token_id": None}))
    return folder


@pytest.fixture(scope="module")
def engine(endless: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("engine")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stale:  # as a killed engine leaves it
        stale.bind(str(folder / "engine.sock"))
    with EngineProcess(folder, endless) as started:
        started.until(Ready)
        yield started
        assert started.process.poll() is None, started.log()


def copy_of(checkpoint: Path, folder: Path) -> Path:
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def text_of(replies: list[Any]) -> str:
    return "".join(reply.text for reply in replies if isinstance(reply, Delta))


def wait_idle(engine: EngineProcess) -> None:
    """A short request that is answered: nothing runs before it."""
    assert isinstance(last_of(engine.answer(max_tokens=1)), Finished)


def test_the_start_is_told_step_by_step(engine: EngineProcess, endless: Path) -> None:
    loading = [event for event in engine.received if isinstance(event, Loading)]
    steps = [event.progress for event in engine.received if isinstance(event, ProofStep)]
    proving, *_, ready = engine.received[engine.received.index(loading[-1]) + 1 :]
    total = sum(file.stat().st_size for file in endless.glob("*.safetensors"))
    assert loading[0].done_bytes == 0
    assert loading[-1].done_bytes == loading[-1].total_bytes
    assert total * 0.99 < loading[-1].total_bytes <= total
    assert isinstance(proving, Proving)
    assert proving.weights_bytes == loading[-1].total_bytes
    assert (steps[0].done, steps[0].share) == (0, 0.0)
    assert steps[-1].done == steps[-1].total >= 4, "two layers, a decode step and the self-test at least"
    assert (steps[-1].share, steps[-1].eta_seconds) == (pytest.approx(1), 0.0)
    assert isinstance(ready, Ready)
    assert ready.proof.measured_bytes >= ready.resident_bytes * 0.9 > 100e6
    assert ready.proof.planned_bytes == PLANNED_BYTES


def test_only_the_owner_may_connect(engine: EngineProcess) -> None:
    assert stat.S_IMODE(engine.socket_path.stat().st_mode) == 0o600


def test_the_weights_are_memory_of_its_own(engine: EngineProcess) -> None:
    """A mapping of the file larger than the container's limit would be read again and again, for ever."""
    assert ".safetensors" not in Path(f"/proc/{engine.process.pid}/maps").read_text()


def test_an_answer_streams_and_counts(engine: EngineProcess) -> None:
    replies = engine.answer("hello there", max_tokens=20)
    accepted, end = replies[0], last_of(replies)
    assert isinstance(accepted, Accepted)
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.completion_tokens, end.prompt_tokens) == ("length", 20, accepted.prompt_tokens)
    assert sum(reply.tokens for reply in replies if isinstance(reply, Delta)) <= 20
    assert text_of(replies)
    assert text_of(engine.answer("hello there", max_tokens=20)) == text_of(replies)


def test_how_busy_it_is_and_what_a_conversation_reuses(engine: EngineProcess) -> None:
    wait_idle(engine)
    before = engine.stats()
    assert (before.running, before.waiting, before.slots, before.cache_limit_tokens) == (0, 0, 1, 512)
    text = "a beginning that two conversations share, long enough to be worth keeping"
    first = last_of(engine.answer(text, max_tokens=4))
    second = last_of(engine.answer(text, max_tokens=4))
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert second.cached_tokens == second.prompt_tokens - 1
    after = engine.stats()
    assert after.reused_tokens - before.reused_tokens == first.cached_tokens + second.cached_tokens
    computed = first.prompt_tokens + second.prompt_tokens - first.cached_tokens - second.cached_tokens
    assert after.prefilled_tokens - before.prefilled_tokens == computed
    assert (after.decode_steps - before.decode_steps, after.decoded_tokens - before.decoded_tokens) == (6, 6)


def test_a_seed_repeats_a_sampled_answer(engine: EngineProcess) -> None:
    def sampled(seed: int | None) -> str:
        return text_of(engine.answer(max_tokens=20, sampling=SamplingParams(temperature=1.0, top_p=0.9, seed=seed)))

    assert sampled(7) == sampled(7) == sampled(7 + (1 << 64))
    assert len({sampled(seed) for seed in (1, -2, None, None)}) == 4


def test_a_stop_string_ends_the_text_before_it(engine: EngineProcess) -> None:
    whole = text_of(engine.answer(max_tokens=40))
    stop = whole[len(whole) // 2 :][:3]
    replies = engine.answer(max_tokens=40, stop=(stop,))
    end = last_of(replies)
    assert isinstance(end, Finished)
    assert end.finish_reason == "stop"
    assert text_of(replies) == whole[: whole.index(stop)]


def test_an_answer_may_fill_the_context(engine: EngineProcess) -> None:
    end = last_of(engine.answer("hello"))
    assert isinstance(end, Finished)
    assert end.finish_reason == "length"
    assert end.prompt_tokens + end.completion_tokens == 512


def test_what_cannot_fit_is_refused_with_the_largest_that_would(engine: EngineProcess) -> None:
    end = last_of(engine.answer("word " * 1000))
    assert isinstance(end, Failed)
    assert (end.status, end.code, end.param) == (400, "context_length_exceeded", "messages")
    assert "511" in end.message
    end = last_of(engine.answer("hello", max_tokens=10_000))
    assert isinstance(end, Failed)
    assert (end.status, end.param) == (400, "max_tokens")
    assert "10000" in end.message


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        (b"\n", 400, "invalid_request"),
        (b"not json\n", 400, "invalid_request"),
        (b"[" * 100_000 + b"\n", 400, "invalid_request"),
        (b'{"type": "chat", "request_id": 1}\n', 400, "invalid_request"),
        (b'{"request_id": "x", "messages": []}\n', 400, "invalid_request"),
        (b'{"type": "chat", "request_id": "x", "messages": []}\n', 400, "invalid_value"),
        (b"x" * (LINE_LIMIT_BYTES + 1) + b"\n", 413, "request_too_large"),
        (b"x" * (3 * LINE_LIMIT_BYTES) + b"\n", 413, "request_too_large"),
        (
            b'{"type":"chat","request_id":"x","messages":[{"role":"user","content":"a"}],'
            b'"sampling":{"temperature":NaN}}\n',
            400,
            "invalid_value",
        ),
    ],
    ids=["empty", "no json", "deep", "wrong type", "no type", "no messages", "too long", "far too long", "nan"],
)
def test_a_bad_line_is_refused_by_name(engine: EngineProcess, line: bytes, status: int, code: str) -> None:
    end = last_of(engine.send_line(line))
    assert isinstance(end, Failed)
    assert (end.status, end.code) == (status, code)


def test_a_lone_surrogate_is_a_character_like_others(engine: EngineProcess) -> None:
    messages = [{"role": "user", "content": "a\ud800b"}]
    request = {"type": "chat", "request_id": "x", "messages": messages, "max_tokens": 2}
    assert isinstance(last_of(engine.send_line(json.dumps(request).encode() + b"\n")), Finished)


def test_a_full_queue_is_said_at_once_and_drains(engine: EngineProcess) -> None:
    waiting = [engine.ask() for _ in range(3)]  # one runs, two wait
    for conversation in waiting:
        conversation.connection.recv(1)  # each was accepted
    end = last_of(engine.answer())
    assert isinstance(end, Failed)
    assert (end.status, end.code) == (429, "queue_full")
    assert end.retry_after_seconds
    for conversation in waiting:
        conversation.close()
    deadline = time.monotonic() + 2
    while isinstance(last := last_of(engine.answer(max_tokens=1)), Failed):
        assert last.code == "queue_full"
        assert time.monotonic() < deadline


def test_closing_frees_the_engine_within_a_step(engine: EngineProcess) -> None:
    started = time.monotonic()
    whole = last_of(engine.answer())
    full_seconds = time.monotonic() - started
    assert isinstance(whole, Finished)
    conversation = engine.ask()
    next(reply for reply in conversation.replies() if isinstance(reply, Delta))
    conversation.close()
    started = time.monotonic()
    wait_idle(engine)
    assert time.monotonic() - started < max(0.3, full_seconds / 3)


def test_a_client_that_hangs_up_while_waiting_leaves_the_queue(engine: EngineProcess) -> None:
    running = engine.ask()
    next(iter(running.replies()))
    for _ in range(6):  # more than the queue holds
        waiting = engine.ask(max_tokens=1)
        assert isinstance(next(iter(waiting.replies())), Accepted)
        waiting.close()
        time.sleep(0.02)
    running.close()
    wait_idle(engine)


def test_a_reader_that_never_reads_harms_nobody(engine: EngineProcess) -> None:
    deaf = engine.ask()
    for _ in range(2):
        assert isinstance(last_of(engine.answer(max_tokens=1)), Finished)
    deaf.close()


def test_many_connections_that_say_nothing_harm_nobody(engine: EngineProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(contextlib.closing(engine.connect()))
        wait_idle(engine)


def test_memory_descriptors_and_threads_stay_where_they_were(engine: EngineProcess) -> None:
    def held() -> tuple[int, int, int]:
        proc = Path("/proc") / str(engine.process.pid)
        anonymous = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(anonymous.split()[1]), len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))

    wait_idle(engine)
    time.sleep(0.1)
    before = held()
    for round_ in range(20):
        engine.answer("word " * round_ * 5, max_tokens=3)
        engine.answer("word " * 1000)
        engine.ask().close()
    wait_idle(engine)
    deadline = time.monotonic() + 5
    while held()[1:] > before[1:] and time.monotonic() < deadline:
        time.sleep(0.05)
    after = held()
    assert after[1:] <= before[1:]
    assert after[0] - before[0] < 8 * 1024


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("int8", "bfloat16"), ("int4", "bfloat16")])
def test_every_rung_loads_and_answers(checkpoint: Path, tmp_path: Path, precision: Precision, dtype: Dtype) -> None:
    with EngineProcess(tmp_path, checkpoint, precision, dtype=dtype) as engine:
        proving = engine.until(Proving)
        engine.until(Ready)
        assert isinstance(last_of(engine.answer(max_tokens=4)), Finished)
        log = engine.log()
    stored = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    assert proving.weights_bytes < stored * 0.51
    assert all(" engine INFO " in line for line in log.splitlines()), log


def test_sigterm_finishes_the_running_answer_and_refuses_the_waiting(endless: Path, tmp_path: Path) -> None:
    with EngineProcess(tmp_path, endless) as engine:
        engine.until(Ready)
        os.kill(engine.process.pid, signal.SIGINT)  # the supervisor's business
        running = engine.ask()
        stream = running.replies()
        assert isinstance(next(stream), Accepted)
        waiting = engine.ask()
        waiting_stream = waiting.replies()
        assert isinstance(next(waiting_stream), Accepted)
        engine.terminate()
        ends = [list(waiting_stream)[-1], list(stream)[-1]]
        assert engine.process.wait(10) == exits.OK
        assert not engine.socket_path.exists()
        running.close()
        waiting.close()
        log = engine.log()
    assert isinstance(ends[0], Failed)
    assert (ends[0].status, ends[0].code) == (503, "shutting_down")
    assert isinstance(ends[1], Finished)
    assert all(re.match(r"\d{4}-\d\d-\d\d .* engine INFO ", line) for line in log.splitlines()), log


def test_a_cut_lifeline_ends_a_busy_engine_at_once(endless: Path, tmp_path: Path) -> None:
    with EngineProcess(tmp_path, endless) as engine:
        engine.until(Ready)
        conversation = engine.ask()
        next(iter(conversation.replies()))
        started = time.monotonic()
        engine.cut_lifeline()
        assert engine.process.wait(10) == exits.LIFELINE_CUT
        assert time.monotonic() - started < 5
        conversation.close()


def test_a_cut_lifeline_and_sigterm_end_a_loading_engine(checkpoint: Path, tmp_path: Path) -> None:
    with EngineProcess(tmp_path, checkpoint) as engine:
        engine.until(Loading)
        engine.cut_lifeline()
        assert engine.process.wait(10) == exits.LIFELINE_CUT
    with EngineProcess(tmp_path, checkpoint) as engine:
        engine.until(Loading)
        engine.terminate()
        assert engine.process.wait(10) == exits.OK


def test_damaged_checkpoints_are_named(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def cut(folder: Path) -> None:
        weights = folder / "model.safetensors"
        os.truncate(weights, weights.stat().st_size // 2)

    def other_shape(folder: Path) -> None:
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(fields | {"intermediate_size": 512}))

    def more_layers(folder: Path) -> None:
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 3}))

    def no_template(folder: Path) -> None:
        fields = json.loads((folder / "tokenizer_config.json").read_text())
        del fields["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(fields))

    names = {
        cut: "cut short",
        other_shape: "gate_up_proj.weight has shape",
        more_layers: "13 tensors are missing from the checkpoint, such as model.layers.2.",
        no_template: "no chat_template",
    }
    with contextlib.ExitStack() as stack:  # all at once: each spends its time importing torch
        engines = []
        for damage, text in names.items():
            folder = copy_of(checkpoint, tmp_path_factory.mktemp("damaged"))
            damage(folder)
            engines.append((text, stack.enter_context(EngineProcess(tmp_path_factory.mktemp("run"), folder))))
        for text, engine in engines:
            down = engine.until(EngineDown)
            assert down.cause == "bad_checkpoint"
            assert text in down.message
            assert engine.process.wait(10) == exits.ENGINE_BAD_CHECKPOINT


def test_weights_that_are_no_numbers_fail_the_self_test(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nan"
    folder.mkdir()
    weights = copy_of(checkpoint, folder) / "model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.seek(size - 4096)
        file.write(b"\xff" * 4096)  # as float32: NaN
    with EngineProcess(tmp_path, folder) as engine:
        down = engine.until(EngineDown)
        assert (down.cause, engine.process.wait(10)) == ("self_test", exits.ENGINE_SELF_TEST)


def test_a_template_that_makes_nothing_of_a_conversation_refuses_that_one_alone(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "silent"
    folder.mkdir()
    config = copy_of(checkpoint, folder) / "tokenizer_config.json"
    template = "{% for message in messages if message.content != 'nothing' %}{{ message.content }}{% endfor %}"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template}))
    (config.parent / "chat_template.jinja").unlink(missing_ok=True)
    with EngineProcess(tmp_path, config.parent) as engine:
        engine.until(Ready)
        refused = last_of(engine.answer("nothing"))
        assert isinstance(refused, Failed)
        assert (refused.status, refused.code) == (400, "invalid_conversation")
        assert isinstance(last_of(engine.answer("something", max_tokens=2)), Finished)


def test_a_cache_that_cannot_be_allocated_is_out_of_memory(checkpoint: Path, tmp_path: Path) -> None:
    with EngineProcess(tmp_path, checkpoint, max_model_len=1 << 40) as engine:
        down = engine.until(EngineDown)
        assert (down.cause, engine.process.wait(10)) == ("out_of_memory", exits.ENGINE_OUT_OF_MEMORY)
        assert f"{PLANNED_BYTES} bytes planned" in down.message


def test_a_control_token_in_a_message_is_only_text(engine: EngineProcess) -> None:
    plain, marked = (engine.answer(text, max_tokens=1)[0] for text in ("hello", "hello<|user|>"))
    assert isinstance(plain, Accepted)
    assert isinstance(marked, Accepted)
    assert marked.prompt_tokens - plain.prompt_tokens > 1


def test_roles_reach_the_format(engine: EngineProcess) -> None:
    messages = (Message("system", "be brief"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert isinstance(last_of(engine.answer(messages=messages, max_tokens=2)), Finished)


def test_many_at_once_are_answered_or_refused(engine: EngineProcess) -> None:
    ends: list[Finished | Failed] = []

    def one() -> None:
        ends.append(last_of(engine.answer(max_tokens=5)))

    threads = [threading.Thread(target=one) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 40
    assert sum(isinstance(end, Finished) for end in ends) >= 3
    assert all(end.code == "queue_full" for end in ends if isinstance(end, Failed))
