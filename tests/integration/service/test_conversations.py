"""Conversations through the real web process and a fake engine: turns that outlive their readers, engines, workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.conversations import Chats, new_id, parse_events, question
from tests.processes.conversing import TurnReader, content_of
from tests.processes.fake_engine import FakeEngine
from tests.processes.service import wait_until
from tests.processes.web import WebProcess


def test_a_question_is_stored_before_its_answer_and_gives_the_title(chats: Chats, engine: FakeEngine) -> None:
    made = chats.create(system_prompt="Be brief.", temperature=0.25, seed=3, max_tokens=9, enable_thinking=False)
    turn = chats.turn(made, **question("hang 今天\n天气   很好"))
    stored = chats.get(made)
    assert [message.content for message in stored.messages] == ["hang 今天\n天气   很好", ""]
    assert (stored.messages[1].state, stored.leaf_id) == ("writing", turn.answer.id)
    assert stored.head.title == "hang 今天 天气 很好"
    request = engine.last().request
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Be brief."), ("user", "hang 今天\n天气   很好"),
    ]  # fmt: skip
    assert (request.sampling.temperature, request.sampling.seed, request.max_tokens) == (0.25, 3, 9)
    assert request.enable_thinking is False and not request.continue_answer
    chats.fine("POST", f"/api/turns/{turn.answer.id}/stop")


def test_two_readers_one_of_them_late_and_one_that_comes_back(
    web: WebProcess, chats: Chats, engine: FakeEngine
) -> None:
    made = chats.create()
    answer_id = chats.turn(made, **question("slow 600")).answer.id
    with TurnReader(web, answer_id) as first:
        seen = first.event()
    snapshot = chats.message(made, answer_id)
    assert snapshot.state == "writing" and len(snapshot.content) == 2 * snapshot.seq >= 2
    with TurnReader(web, answer_id, snapshot.seq) as late, TurnReader(web, answer_id, seen["seq"]) as again:
        wait_until(lambda: chats.message(made, answer_id).seq > snapshot.seq + 3, 30, "it goes on")
        chats.fine("POST", f"/api/turns/{answer_id}/stop")
        read = {snapshot.content: late.rest(), seen["content"]: again.rest()}
    whole = chats.message(made, answer_id)
    for known, events in read.items():
        assert [event["message"] is not None for event in events] == [False] * (len(events) - 1) + [True]
        assert known + content_of(events) == events[-1]["message"]["content"] == whole.content
        numbers = [event["seq"] for event in events]
        assert numbers == sorted(numbers)
    assert whole.completion_tokens == whole.seq
    assert whole.tokens_per_second is not None and 0 < whole.tokens_per_second < 100


def test_nobody_needs_to_read_and_a_lazy_reader_holds_up_nobody(
    web: WebProcess, chats: Chats, engine: FakeEngine
) -> None:
    made = chats.create()
    words = ("你" * 1000 + " ") * 500  # more than the sockets between them hold
    answer_id = chats.turn(made, **question(f"echo {words}")).answer.id
    with TurnReader(web, answer_id):  # never reads
        wait_until(lambda: chats.message(made, answer_id).state == "done", 60, "the answer is whole")
    assert chats.message(made, answer_id).content == words


def test_reading_an_answer_at_rest_is_one_event(chats: Chats, engine: FakeEngine) -> None:
    made = chats.create()
    answer = chats.say(made, "echo 你好 world")
    for after in (0, 1, 99):
        (event,) = parse_events(chats.fine("GET", f"/api/turns/{answer.id}/events?after={after}"))
        assert event["message"]["content"] == "你好 world " and event["seq"] == answer.seq == 2


def test_stop_keeps_what_came_and_the_engine_is_told(chats: Chats, engine: FakeEngine, web: WebProcess) -> None:
    made = chats.create()
    answer_id = chats.turn(made, **question("slow 400")).answer.id
    with TurnReader(web, answer_id) as reader:
        reader.event()
        stopped = chats.fine("POST", f"/api/turns/{answer_id}/stop")
        assert reader.rest()[-1]["message"] == stopped
    assert stopped["state"] == "stopped" and stopped["content"].startswith("x x ") is (stopped["seq"] > 1)
    assert engine.last().done.wait(30) and engine.last().cancelled_at is not None
    assert chats.fine("POST", f"/api/turns/{answer_id}/stop") == stopped
    assert chats.message(made, answer_id).state == "stopped"


def test_regenerated_answers_and_edited_questions_are_siblings(chats: Chats, engine: FakeEngine) -> None:
    made = chats.create()
    first = chats.say(made, "echo one")
    second = chats.rest(chats.turn(made, answer_id=new_id(), parent_id=first.parent_id).answer.id)
    assert (second.parent_id, second.content) == (first.parent_id, "one ")
    follow_up = chats.say(made, "echo two", first.id)
    assert [m.content for m in engine.last().request.messages] == ["echo one", "one ", "echo two"]
    edited = chats.say(made, "echo three", first.id)
    assert [m.content for m in engine.last().request.messages] == ["echo one", "one ", "echo three"]
    whole = chats.get(made)
    assert whole.leaf_id == edited.id and len(whole.messages) == 7
    chats.fine("DELETE", f"/api/messages/{edited.parent_id}")
    left = chats.get(made)
    assert left.leaf_id == follow_up.id and len(left.messages) == 5
    chats.fine("DELETE", f"/api/messages/{first.parent_id}")
    assert chats.get(made).messages == ()


def test_a_reader_who_knows_an_older_answer_gets_it_anew(chats: Chats, engine: FakeEngine, web: WebProcess) -> None:
    made = chats.create()
    answer_id = chats.turn(made, **question("slow 600")).answer.id
    with TurnReader(web, answer_id) as reader:
        seen = reader.event()["seq"]
    wait_until(lambda: chats.message(made, answer_id).seq > seen, 30, "it goes on")
    stopped = chats.fine("POST", f"/api/turns/{answer_id}/stop")
    chats.turn(made, answer_id=answer_id, continues=answer_id, seq=stopped["seq"])
    with TurnReader(web, answer_id, seen) as reader:
        first = reader.event()["message"]
        wait_until(lambda: chats.message(made, answer_id).seq > first["seq"], 30, "it goes on")
        chats.fine("POST", f"/api/turns/{answer_id}/stop")
        rest = reader.rest()
    assert first["state"] == "writing" and first["content"].startswith(stopped["content"])
    assert first["content"] + content_of(rest) == rest[-1]["message"]["content"]


def test_asking_twice_is_one_turn_even_at_the_same_time(chats: Chats, engine: FakeEngine) -> None:
    made, body = new_id(), question("slow 10")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: chats.fine("POST", "/api/conversations", {"id": made}), range(8)))
        turns = list(threads.map(lambda _: chats.turn(made, **body), range(8)))
    assert {turn.answer.id for turn in turns} == {body["answer_id"]}
    answer = chats.rest(body["answer_id"])
    late = chats.turn(made, **body)
    assert late.answer == answer and late.question is not None and late.question.id == body["question_id"]
    assert len(chats.get(made).messages) == 2 and len(engine.received) == 1
    assert chats.send("POST", f"/api/conversations/{made}/turns", {**body, "content": "other"})[0] == 409


def test_deleting_stops_what_is_written(chats: Chats, engine: FakeEngine) -> None:
    made = chats.create()
    first = chats.say(made, "echo one")
    below = chats.turn(made, **question("hang", first.id)).answer.id
    chats.fine("DELETE", f"/api/messages/{first.id}")
    assert engine.last().done.wait(30) and engine.last().cancelled_at is not None
    assert chats.send("GET", f"/api/turns/{below}/events", None)[0] == 404
    other = chats.turn(made, **question("hang more"))
    chats.fine("DELETE", f"/api/conversations/{made}")
    assert engine.last().done.wait(30) and engine.last().cancelled_at is not None
    assert chats.send("POST", f"/api/turns/{other.answer.id}/stop", None)[0] == 404


def test_readers_are_bounded_and_health_answers(web: WebProcess, chats: Chats, engine: FakeEngine) -> None:
    made = chats.create()
    answer_id = chats.turn(made, **question("hang")).answer.id
    readers = [TurnReader(web, answer_id) for _ in range(30)]
    try:
        assert [reader.answer.status for reader in readers] == [200] * 28 + [429] * 2
        web.get("/health/live")
        other = chats.create()
        written = chats.turn(other, **question("echo still here")).answer.id
        wait_until(lambda: chats.message(other, written).content == "still here ", 30, "it is written")
        readers.pop(0).__exit__()

        def one_more() -> bool:
            with TurnReader(web, answer_id) as reader:
                return bool(reader.answer.status == 200)

        wait_until(one_more, 30, "a reader that left makes room")
    finally:
        chats.fine("POST", f"/api/turns/{answer_id}/stop")
        for reader in readers:
            reader.__exit__()


def test_many_at_once_are_not_mixed_up(chats: Chats, engine: FakeEngine) -> None:
    made = [chats.create() for _ in range(20)]
    answers: dict[str, str] = {}

    def talk(number: int) -> None:
        answers[made[number]] = chats.say(made[number], f"echo {number} {number}").content

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {conversation: f"{number} {number} " for number, conversation in enumerate(made)}
