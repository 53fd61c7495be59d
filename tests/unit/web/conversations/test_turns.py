"""Parts of a turn by themselves: titles, the prompt of a branch, and readers of an answer that grows."""

from __future__ import annotations

import threading

import pytest

from app.contract.conversations import ChatSettings, MessageError, StoredMessage, TurnEvent
from app.contract.wire import ToolCall, ToolCallDelta
from app.web.conversations.prompt import chat_request
from app.web.conversations.running_turn import RunningTurn
from app.web.store.turns import title_of


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("Hello", "Hello"),
        ("  # A *heading*\n\nand\tmore ", "A *heading* and more"),
        ("北京今天天气怎么样？", "北京今天天气怎么样？"),
        ("天" * 40, "天" * 29 + "…"),
        ("word " * 30, " ".join(["word"] * 12) + "…"),
        ("x" * 100, "x" * 59 + "…"),
        ("a\0b\x1bc\u202ed", "a b c d"),
        ("one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve",
         "one, two, three, four, five, six, seven, eight, nine, ten…"),
        ("###", ""),
    ],
)  # fmt: skip
def test_a_title_is_the_first_words_on_one_line(question: str, title: str) -> None:
    assert title_of(question) == title and len(title) <= 60


def branch(*said: tuple[str, str]) -> list[StoredMessage]:
    return [
        StoredMessage(str(n), str(n - 1), "user" if role == "user" else "assistant", content, 0.0)
        for n, (role, content) in enumerate(said)
    ]


def test_what_the_model_is_asked_is_the_branch_without_answers_that_say_nothing() -> None:
    settings = ChatSettings(system_prompt="Be brief.", top_k=5, min_p=0.1, presence_penalty=1.0, enable_thinking=True)
    messages = branch(("user", "one"), ("assistant", ""), ("user", "two"), ("assistant", "2"), ("user", "three"))
    request = chat_request("req_1", messages, settings, continues=False)
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Be brief."), ("user", "one"), ("user", "two"), ("assistant", "2"), ("user", "three"),
    ]  # fmt: skip
    assert (request.sampling.top_k, request.sampling.min_p, request.sampling.presence_penalty) == (5, 0.1, 1.0)
    assert request.enable_thinking is True and request.max_tokens is None and not request.continue_answer


def test_an_answer_goes_on_from_its_thoughts_or_words_and_begins_anew_without() -> None:
    asked, empty = branch(("user", "one"), ("assistant", ""))
    thought = StoredMessage("9", "0", "assistant", "", 0.0, "interrupted", reasoning="hm", error=MessageError("x", "y"))
    assert chat_request("r", [asked, thought], ChatSettings(), continues=True).continue_answer
    anew = chat_request("r", [asked, empty], ChatSettings(), continues=True)
    assert not anew.continue_answer and [m.content for m in anew.messages] == ["one"]


def grown(seq: int = 0, content: str = "") -> RunningTurn:
    turn = RunningTurn("c", StoredMessage("a", "q", "assistant", content, 0.0, "writing", seq=seq))
    for word in ("one ", "two ", "three "):
        turn.add(word, "", ())
    return turn


def test_a_reader_gets_what_it_missed_at_once_and_nothing_twice() -> None:
    turn = grown()
    assert turn.after(0, 0) == TurnEvent(3, "one two three ")
    assert turn.after(2, 0) == TurnEvent(3, "three ")
    assert turn.after(3, 0) is None
    turn.add("", "hm", ())
    assert turn.after(3, 0) == TurnEvent(4, "", "hm")
    turn.add("end", "", ())
    turn.end(turn.message())
    assert turn.after(4, 0) == TurnEvent(5, "end")
    assert turn.after(5, 0) == TurnEvent(5, message=turn.message())


@pytest.mark.parametrize("strange", [0, 6, 14])
def test_a_reader_of_another_beginning_gets_the_whole(strange: int) -> None:
    turn = grown(seq=10, content="zero ")
    event = turn.after(strange, 0)
    assert event is not None and event.seq == 13 and event.message == turn.message()
    assert turn.message().content == "zero one two three " and turn.message().state == "writing"
    assert turn.after(10, 0) == TurnEvent(13, "one two three ")


def test_calls_are_told_whole_and_only_when_they_changed() -> None:
    turn = grown()
    turn.add("", "", (ToolCallDelta(0, "call_1", "weather", '{"city": '),))
    turn.add("", "", (ToolCallDelta(0, arguments='"北京"}'), ToolCallDelta(1, "call_2", "time", "{}")))
    calls = (ToolCall("call_1", "weather", '{"city": "北京"}'), ToolCall("call_2", "time", "{}"))
    assert turn.after(3, 0) == TurnEvent(5, tool_calls=calls)
    turn.add("more", "", ())
    assert turn.after(5, 0) == TurnEvent(6, "more")
    assert turn.message().tool_calls == calls


def test_a_waiting_reader_is_woken() -> None:
    turn = grown()
    seen: list[TurnEvent | None] = []
    reader = threading.Thread(target=lambda: seen.append(turn.after(3, 60)))
    reader.start()
    turn.add("four", "", ())
    reader.join(30)
    assert seen == [TurnEvent(4, "four")]
