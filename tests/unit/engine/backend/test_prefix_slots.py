"""Who sits where: what a seat promises is what was really computed, whatever came before."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.engine.backend.prefix_slots import LEAST_REUSE, Slots

BLOCKS = tuple((letter,) * LEAST_REUSE for letter in (1, 2, 3))
PROMPTS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4).map(lambda blocks: sum(blocks, ()))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("seat"), PROMPTS),
        st.tuples(st.just("compute"), st.integers(0, 3), st.integers(1, 3 * LEAST_REUSE)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
        st.tuples(st.just("forget"), st.integers(0, 3)),
    ),
    max_size=30,
)


class Memory:
    """What a cache would hold, id by id; old values stay behind a sequence's end."""

    def __init__(self, count: int) -> None:
        self.slots = Slots(count)
        self._count = count
        self._cells: list[list[int]] = [[] for _ in range(count)]
        self._running: dict[int, tuple[int, ...]] = {}
        """Sequences by slot."""

    def seat(self, prompt: tuple[int, ...]) -> None:
        if len(self._running) == self._count:
            return
        longest = max(self._common(slot, prompt) for slot in range(self._count))
        seat = self.slots.take(prompt)
        assert seat.slot not in self._running
        assert seat.kept == (longest if longest >= LEAST_REUSE else 0)
        self._cells[seat.slot][: seat.kept] = self._cells[seat.source][: seat.kept]
        assert tuple(self._cells[seat.slot][: seat.kept]) == prompt[: seat.kept]
        assert self.slots.length(seat.slot) == seat.kept
        self._running[seat.slot] = prompt

    def compute(self, which: int, count: int) -> None:
        for slot in self._at(which):
            start = self.slots.length(slot)
            ids = (*self._running[slot], 9, 9)[start : start + count]
            self._cells[slot][start : start + len(ids)] = ids
            self.slots.append(slot, ids)

    def leave(self, which: int) -> None:
        for slot in self._at(which):
            self.slots.leave(slot)
            del self._running[slot]

    def forget(self, which: int) -> None:
        for slot in self._at(which):
            self.slots.forget(slot)
            self._cells[slot] = []
            self.leave(which)

    def _common(self, slot: int, prompt: tuple[int, ...]) -> int:
        held = self._cells[slot][: self.slots.length(slot)]
        same = [ours == theirs for ours, theirs in zip(held, prompt[:-1], strict=False)]
        return same.index(False) if False in same else len(same)

    def _at(self, which: int) -> list[int]:
        return sorted(self._running)[which : which + 1]


@given(OPERATIONS, st.integers(1, 4))
def test_a_seat_promises_what_was_computed_and_the_most_of_it(operations: list[tuple[Any, ...]], count: int) -> None:
    memory = Memory(count)
    for name, *arguments in operations:
        getattr(memory, name)(*arguments)


def seated(slots: Slots, prompt: tuple[int, ...]) -> int:
    """The slot of a sequence that ran and ended."""
    seat = slots.take(prompt)
    slots.append(seat.slot, prompt[seat.kept :])
    slots.leave(seat.slot)
    return seat.slot


def test_a_conversation_comes_back_to_its_slot_past_others_with_the_same_system_prompt() -> None:
    system, one, two = BLOCKS[0], BLOCKS[1] * 3, BLOCKS[2] * 3
    slots = Slots(3)
    first = seated(slots, system + one)
    second = seated(slots, system + two)
    assert first != second
    seat = slots.take(system + one + two)
    assert (seat.slot, seat.source, seat.kept) == (first, first, 4 * LEAST_REUSE)


def test_the_slot_that_is_longest_unused_is_given_away() -> None:
    slots = Slots(2)
    first, second = seated(slots, BLOCKS[0]), seated(slots, BLOCKS[1])
    assert seated(slots, (*BLOCKS[0], 5)) == first
    assert seated(slots, BLOCKS[2]) == second
