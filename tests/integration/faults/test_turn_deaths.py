"""Turns whose engine, worker or service ends: the question is kept, the answer says how it ended, and it goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from app.contract.conversations import StoredMessage
from tests.conversations import Chats, parse_events, question
from tests.processes.conversing import TurnReader, chats_of
from tests.processes.fake_engine import FakeEngine
from tests.processes.service import wait_until
from tests.processes.web import WebProcess, send_signal, start_web, temporary_folder, wait_gone


def test_an_answer_that_failed_says_why_keeps_the_question_and_is_left_out_later(
    chats: Chats, engine: FakeEngine
) -> None:
    made = chats.create()
    for content, code in (("refuse", "context_length_exceeded"), ("full", "queue_full")):
        failed = chats.say(made, content)
        assert (failed.state, failed.content, failed.error and failed.error.code) == ("failed", "", code)
    chats.say(made, "echo on", failed.id)
    assert [m.content for m in engine.last().request.messages] == ["full", "echo on"]


def test_no_engine_and_no_model_keep_the_question(chats: Chats, web: WebProcess) -> None:
    made = chats.create()
    assert (chats.say(made, "echo 1").error or StoredMessage).code == "engine_away"  # type: ignore[union-attr]
    web.set_phase("loading")
    try:
        failed = chats.say(made, "echo 2")
    finally:
        web.set_phase("ready")
    assert failed.error is not None and failed.error.code == "model_not_ready"
    with FakeEngine(web.folder / "engine.sock"):
        again = chats.turn(made, answer_id=failed.id, continues=failed.id, seq=failed.seq)
        assert chats.rest(again.answer.id).content == "2 "


def test_an_engine_that_dies_leaves_the_partial_answer_which_goes_on(chats: Chats, engine: FakeEngine) -> None:
    made = chats.create()
    broken = chats.say(made, "die")
    assert (broken.state, broken.content) == ("interrupted", "half an ")
    again = chats.turn(made, answer_id=broken.id, continues=broken.id, seq=broken.seq)
    assert (again.answer.state, again.answer.content) == ("writing", "half an ")
    went_on = chats.rest(broken.id)
    assert (went_on.content, went_on.seq, went_on.completion_tokens) == ("half an half an ", broken.seq + 1, 4)
    request = engine.last().request
    assert request.continue_answer and [m.content for m in request.messages] == ["die", "half an "]
    asked = len(engine.received)
    late = chats.turn(made, answer_id=broken.id, continues=broken.id, seq=broken.seq)
    assert late.answer.content == "half an half an " and len(engine.received) == asked


def test_a_killed_worker_leaves_partial_answers_that_go_on(web: WebProcess, chats: Chats, engine: FakeEngine) -> None:
    made = chats.create()
    answer_id = chats.turn(made, **question("slow 400")).answer.id
    with TurnReader(web, answer_id) as reader:
        while reader.event()["seq"] < 25:
            pass
        worker = web.worker()
        send_signal(worker, signal.SIGKILL)
        wait_gone(worker, 10)
    web.wait_alive(time.monotonic() - web.started + 60)
    kept = chats.message(made, answer_id)
    assert kept.state == "interrupted" and kept.content.startswith("x ")
    assert len(kept.content) == 2 * (kept.seq - 10_000)
    (event,) = parse_events(chats.fine("GET", f"/api/turns/{answer_id}/events?after=25"))
    assert event["message"]["state"] == "interrupted"
    chats.turn(made, answer_id=answer_id, continues=answer_id, seq=kept.seq)
    wait_until(lambda: chats.message(made, answer_id).content > kept.content, 30, "it goes on")
    assert chats.fine("POST", f"/api/turns/{answer_id}/stop")["state"] == "stopped"


def test_a_stop_of_the_service_waits_for_answers_that_nobody_reads() -> None:
    with temporary_folder() as name, FakeEngine(Path(name) / "engine.sock") as engine:
        web = start_web(Path(name), engine.path, drain_seconds=6)
        try:
            web.wait_alive(60)
            chats = chats_of(web)
            made = chats.create()
            short, long = (chats.turn(made, **question(f"slow {words}")).answer.id for words in (20, 4000))
            wait_until(lambda: all(message.seq for message in chats.get(made).messages[1::2]), 30, "both have begun")
            send_signal(web.process.pid, signal.SIGTERM)
            web.process.wait(60)
        finally:
            web.stop()
        web = start_web(Path(name), engine.path)
        try:
            web.wait_alive(60)
            whole, cut = (chats_of(web).message(made, answer_id) for answer_id in (short, long))
        finally:
            web.stop()
    assert (whole.state, whole.content) == ("done", "x " * 20)
    assert (cut.state, cut.error and cut.error.code) == ("interrupted", "stopping"), "stored by the writer itself"
    assert cut.content == "x " * cut.seq
