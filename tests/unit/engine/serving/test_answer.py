"""One answer: its parts, where it is cut, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.wire import Delta, Finished, TokenChance, TokenLogprob, ToolCallDelta
from app.engine.backend.interface import Logprobs
from app.engine.backend.sequence import RequiredPrefixes
from app.engine.formats.base import Prompt, PromptRequest
from app.engine.formats.parsing.answer_parser import TokenParser
from app.engine.formats.parsing.detokenise import IncrementalDetokeniser
from app.engine.sampling import SamplingDefaults
from app.engine.serving.answer import AnswerRequest, AnswerWriter
from tests.tokens import GREEDY
from tests.unit.answers import PARSERS

STOP = 0
CALL = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>END</arg_value>\n</tool_call>"
ARGUMENTS = '{"city": "END"}'


class Spelling:
    """GLM-4.5's answers, of which each byte is an id."""

    stop_ids = frozenset({STOP})
    defaults = SamplingDefaults()
    id_limit = 256

    def prompt(self, request: PromptRequest) -> Prompt:
        return Prompt((1, 2, 3))

    def parser(self, request: PromptRequest, prompt_ids: Sequence[int]) -> TokenParser:
        return TokenParser(lambda: IncrementalDetokeniser(self.decode), PARSERS["glm45"]())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


def write(ids: Sequence[int], limit: int = 10_000, stop: tuple[str, ...] = ()) -> list[Delta | Finished]:
    """Every reply to an answer of these ids, of which none come after the end."""
    writer = AnswerWriter(AnswerRequest("request", (1, 2, 3), GREEDY, limit, stop), Spelling())
    replies: list[Delta | Finished] = []
    for token in ids:
        replies += writer.push(token)
        if writer.done:
            return replies
    return [*replies, *writer.end()]


def sums(replies: list[Any]) -> tuple[str, str, list[ToolCallDelta], Finished]:
    *deltas, end = replies
    assert isinstance(end, Finished)
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert sum(delta.tokens for delta in deltas) <= end.completion_tokens
    calls = [call for delta in deltas for call in delta.tool_calls]
    return "".join(delta.text for delta in deltas), "".join(delta.reasoning for delta in deltas), calls, end


def test_thoughts_text_and_calls_come_apart() -> None:
    text, thoughts, calls, end = sums(write([*f"<think>Hm 😀.</think>\nI look.\n{CALL}{CALL}".encode(), STOP]))
    assert (text, thoughts) == ("I look.", "Hm 😀.")
    assert [(call.index, call.name, call.arguments) for call in calls] == [
        (0, "get_weather", ARGUMENTS),
        (1, "get_weather", ARGUMENTS),
    ]
    ids = [call.id or "" for call in calls]
    assert all(len(name) == 29 and name.startswith("call_") for name in ids)
    assert len(set(ids)) == 2
    assert end.finish_reason == "tool_calls"
    assert [call.id for call in sums(write([*f"{CALL}{CALL}".encode(), STOP]))[2]] == ids, "told by the request alone"


@pytest.mark.parametrize(
    ("answer", "text", "reason", "calls"),
    [
        ("Hello END more", "Hello ", "stop", 0),
        ("<think>END</think>Hello", "Hello", "stop", 0),
        (f"Hello {CALL}", "Hello", "tool_calls", 1),
        (f"{CALL} and END more", "and ", "tool_calls", 1),
        ("Hello EN", "Hello EN", "stop", 0),
        (f"Hello EN{CALL}", "Hello EN", "tool_calls", 1),
    ],
)
def test_stop_strings_cut_text_only(answer: str, text: str, reason: str, calls: int) -> None:
    shown, _, made, end = sums(write([*answer.encode(), STOP], stop=("END",)))
    assert (shown, end.finish_reason, len(made)) == (text, reason, calls)


def test_a_call_that_the_limit_cuts_off_is_text() -> None:
    part = CALL.removesuffix("</tool_call>")
    text, _, calls, end = sums(write(list(f"Hi. {CALL}".encode()), limit=len(f"Hi. {part}")))
    assert (text, calls, end.finish_reason) == (f"Hi. {part}".strip(), [], "length")
    _, _, calls, end = sums(write(list(f"{CALL} {part}".encode()), limit=len(f"{CALL} {part}")))
    assert (len(calls), end.finish_reason) == (1, "length")


def test_thoughts_that_the_limit_cuts_off_stay_thoughts() -> None:
    text, thoughts, _, end = sums(write(list(b"<think>Hm. So"), limit=13))
    assert (text, thoughts, end) == ("", "Hm. So", Finished("length", 3, 13))


@given(st.text(alphabet="aE😀你ND<\n ", max_size=20), st.integers(1, 40), st.booleans())
def test_told_in_whole_characters_whatever_the_end(text: str, limit: int, stopped: bool) -> None:
    ids = [*text.encode(), *([STOP] if stopped else [])]
    replies = write(ids, limit, ("END",))
    assert all("\ufffd" not in reply.text for reply in replies if isinstance(reply, Delta))
    shown, _, _, end = sums(replies)
    kept = bytes(ids[:limit]).replace(b"\0", b"").decode("utf-8", "ignore").lstrip()
    assert shown.rstrip() == kept.partition("END")[0].rstrip()
    assert end.completion_tokens <= min(limit, len(ids))


def write_with_logprobs(text: str, limit: int = 10_000, stop: tuple[str, ...] = ()) -> list[Delta | Finished]:
    """Every reply to an answer of which each byte is a token, with the byte's place as its log probability."""
    writer = AnswerWriter(AnswerRequest("request", (1, 2, 3), GREEDY, limit, stop), Spelling())
    replies: list[Delta | Finished] = []
    for place, token in enumerate([*text.encode(), STOP]):
        if not writer.done:
            replies += writer.push(token, Logprobs(-float(place), ((token, -float(place)), (65, -99.0))))
    return replies


def logprobs_of(replies: list[Delta | Finished]) -> list[TokenLogprob]:
    return [one for reply in replies if isinstance(reply, Delta) for one in reply.logprobs]


@pytest.mark.parametrize("text", ["你好 END", "<think>Hm</think> aE ", "a " + CALL + " b", "  ", ""])
@pytest.mark.parametrize("limit", [3, 10_000])
def test_each_token_but_the_last_one_has_its_log_probability(text: str, limit: int) -> None:
    replies = write_with_logprobs(text, limit)
    logprobs = logprobs_of(replies)
    assert [one.chosen.logprob for one in logprobs] == [
        -float(place) for place in range(min(limit, len(text.encode())))
    ]
    assert bytes(byte for one in logprobs for byte in one.chosen.utf8) == text.encode()[:limit]
    assert all(one.top[1] == TokenChance("A", (65,), -99.0) for one in logprobs)
    end = replies[-1]
    assert isinstance(end, Finished)
    assert end.completion_tokens == len(logprobs) + (end.finish_reason != "length")


def test_log_probabilities_come_with_the_delta_that_counts_their_tokens() -> None:
    ended = 0
    for reply in write_with_logprobs("你好 <think>x ENE and so on"):
        if isinstance(reply, Delta):
            assert len(reply.logprobs) == reply.tokens
            ended += reply.tokens
    assert ended == len("你好 <think>x ENE and so on".encode())


def test_what_a_stop_string_cuts_off_has_no_log_probabilities() -> None:
    logprobs = logprobs_of(write_with_logprobs("abENDcd", stop=("END",)))
    assert [one.chosen.text for one in logprobs] == ["a", "b"]
    logprobs = logprobs_of(write_with_logprobs("abENDcd", stop=("ENDE",)))
    assert "".join(one.chosen.text for one in logprobs) == "abENDcd", "it was no stop string"


def test_part_of_a_character_is_shown_as_such() -> None:
    first = logprobs_of(write_with_logprobs("你"))[0].chosen
    assert (first.text, first.utf8) == ("\ufffd", (0xE4,))


def test_none_are_told_where_none_were_asked_for() -> None:
    assert not logprobs_of(write("你好".encode()))


def test_openings_are_taken_one_token_after_another() -> None:
    required_prefixes = RequiredPrefixes(((1, 2, 3), (1, 4), (5,)))
    assert required_prefixes.allowed() == (1, 5)
    required_prefixes.advance(1)
    assert required_prefixes.allowed() == (2, 4)
    required_prefixes.advance(4)
    assert required_prefixes.allowed() == ()
    required_prefixes.advance(77)
    assert required_prefixes.allowed() == ()
    assert RequiredPrefixes(()).allowed() == ()
    required_prefixes = RequiredPrefixes(((1,), (1, 2)))
    required_prefixes.advance(1)
    assert required_prefixes.allowed() == (), "one is complete"
