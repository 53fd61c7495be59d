"""Ids to text: whole characters only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.formats.parsing.detokenise import IncrementalDetokeniser


def decode(ids: Sequence[int]) -> str:
    """One id a byte, as the worst byte-level vocabulary would; ids from 256 on are control tokens."""
    return bytes(token for token in ids if token < 256).decode("utf-8", "replace")


def decode_by_byte(ids: Sequence[int]) -> str:
    """The same if the decoder writes one replacement for each byte that is not a character, as SentencePiece's does."""
    data = bytes(token for token in ids if token < 256)
    # Bytes that are no character become lone surrogates, one each.
    return "".join("�" if "\udc80" <= c <= "\udcff" else c for c in data.decode("utf-8", "surrogateescape"))


def run(ids: list[int], decode: Callable[[Sequence[int]], str] = decode) -> list[str]:
    detokeniser = IncrementalDetokeniser(decode)
    return [*(detokeniser.feed(token) for token in ids), detokeniser.flush()]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="�")))
def test_characters_come_whole_and_complete(text: str) -> None:
    pieces = run(list(text.encode()))
    assert "".join(pieces) == text
    assert all("�" not in piece for piece in pieces)


@given(st.text(alphabet="aé你😀", min_size=1), st.integers(1, 3))
def test_a_character_cut_off_by_the_end_is_dropped(text: str, cut: int) -> None:
    data = text.encode()[:-cut]
    assert "".join(run(list(data))) == data.decode("utf-8", "ignore")


@given(st.lists(st.integers(0, 300)))
def test_anything_can_be_fed(ids: list[int]) -> None:
    assert "".join(run(ids)).rstrip("�") == decode(ids).rstrip("�")


@pytest.mark.parametrize("decode", [decode, decode_by_byte])
@given(st.lists(st.sampled_from([*"a你😀�".encode(), 0x80, 0xF0, 0xFF, 300]), max_size=80))
def test_bytes_that_are_no_characters_come_as_the_whole(decode: Callable[[Sequence[int]], str], ids: list[int]) -> None:
    assert "".join(run(ids, decode)).rstrip("�") == decode(ids).rstrip("�")


@pytest.mark.parametrize("decode", [decode, decode_by_byte])
@pytest.mark.parametrize("repeated", ["�".encode(), b"\x80", b"\xff\xf0"])
def test_a_long_run_of_replacements_streams(decode: Callable[[Sequence[int]], str], repeated: bytes) -> None:
    """Held back to its end, its window would grow, and the time that each token takes with it."""
    longest = 0

    def watched(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    ids = list(repeated) * 500
    pieces = run([*ids, 65], watched)
    assert "".join(pieces) == decode([*ids, 65])
    assert len("".join(pieces[:-2])) > 400, "shown as it came"
    assert longest < 64


def test_control_tokens_do_not_make_the_window_long() -> None:
    longest = 0

    def watched(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    detokeniser = IncrementalDetokeniser(watched)
    for token in (65, *[300] * 100, 66):
        detokeniser.feed(token)
    assert longest <= 3
