"""Stop strings, whatever pieces the text comes in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.engine.serving.stop_strings import StopMatch, StopMatcher

LETTERS = st.text(alphabet="ab\n", max_size=30)


def run(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        cut = matcher.feed(piece)
        shown += cut.text
        if cut.stopped:
            return shown, True
    return shown + matcher.flush(), False


@given(LETTERS, st.lists(st.text(alphabet="ab\n", max_size=4), max_size=3), st.sets(st.integers(1, 29), max_size=8))
@example("abb", ["b", "abb"], set())
def test_the_match_that_ends_first_cuts_whatever_the_pieces(text: str, stops: list[str], cuts: set[int]) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    matches = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop and stop in text]
    expected = (text[: min(matches)[1]], True) if matches else (text, False)
    assert run(tuple(stops), pieces) == expected


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (("END",), ["xE", "N", "D and more"], "x"),
        (("END",), ["xE", "N", "x"], "xENx"),
        (("aab",), ["aa", "ab", "c"], "a"),
        (("b", "abc"), ["xab"], "xa"),
        (("",), ["text"], "text"),
        ((), ["a", "b"], "ab"),
        (("。",), ["你好", "。再见"], "你好"),
    ],
)
def test_examples(stops: tuple[str, ...], pieces: list[str], shown: str) -> None:
    assert run(stops, pieces)[0] == shown


def test_only_what_may_begin_a_stop_is_held_back() -> None:
    matcher = StopMatcher(("###",))
    assert matcher.feed("one #") == StopMatch("one ", stopped=False)
    assert matcher.feed("two") == StopMatch("#two", stopped=False)
    assert matcher.flush() == ""
