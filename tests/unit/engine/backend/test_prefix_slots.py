"""Slot assignments: a reused prefix was really computed, whatever came before."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.engine.backend.prefix_slots import MIN_REUSED_TOKENS, PrefixSlots

BLOCKS = tuple((letter,) * MIN_REUSED_TOKENS for letter in (1, 2, 3))
PROMPTS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4).map(lambda blocks: sum(blocks, ()))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), PROMPTS),
        st.tuples(st.just("compute"), st.integers(0, 3), st.integers(1, 3 * MIN_REUSED_TOKENS)),
        st.tuples(st.just("release"), st.integers(0, 3)),
        st.tuples(st.just("clear"), st.integers(0, 3)),
    ),
    max_size=30,
)


class Memory:
    """A model of the cache, id by id; old values stay after a sequence's end."""

    def __init__(self, count: int) -> None:
        self.slots = PrefixSlots(count)
        self._count = count
        self._cells: list[list[int]] = [[] for _ in range(count)]
        self._running: dict[int, tuple[int, ...]] = {}
        """Sequences by slot."""

    def assign(self, prompt: tuple[int, ...]) -> None:
        if len(self._running) == self._count:
            return
        longest = max(self._common(slot, prompt) for slot in range(self._count))
        assignment = self.slots.assign(prompt)
        assert assignment.slot not in self._running
        assert assignment.reused_tokens == (longest if longest >= MIN_REUSED_TOKENS else 0)
        self._cells[assignment.slot][: assignment.reused_tokens] = self._cells[assignment.source][
            : assignment.reused_tokens
        ]
        assert tuple(self._cells[assignment.slot][: assignment.reused_tokens]) == prompt[: assignment.reused_tokens]
        assert self.slots.length(assignment.slot) == assignment.reused_tokens
        self._running[assignment.slot] = prompt

    def compute(self, which: int, count: int) -> None:
        for slot in self._at(which):
            start = self.slots.length(slot)
            ids = (*self._running[slot], 9, 9)[start : start + count]
            self._cells[slot][start : start + len(ids)] = ids
            self.slots.append(slot, ids)

    def release(self, which: int) -> None:
        for slot in self._at(which):
            self.slots.release(slot)
            del self._running[slot]

    def clear(self, which: int) -> None:
        for slot in self._at(which):
            self.slots.clear(slot)
            self._cells[slot] = []
            self.release(which)

    def _common(self, slot: int, prompt: tuple[int, ...]) -> int:
        held = self._cells[slot][: self.slots.length(slot)]
        same = [ours == theirs for ours, theirs in zip(held, prompt[:-1], strict=False)]
        return same.index(False) if False in same else len(same)

    def _at(self, which: int) -> list[int]:
        return sorted(self._running)[which : which + 1]


@given(OPERATIONS, st.integers(1, 4))
def test_an_assignment_reuses_the_most_of_what_was_computed(operations: list[tuple[Any, ...]], count: int) -> None:
    memory = Memory(count)
    for name, *arguments in operations:
        getattr(memory, name)(*arguments)


def ran(slots: PrefixSlots, prompt: tuple[int, ...]) -> int:
    """The slot of a sequence that ran and ended."""
    assignment = slots.assign(prompt)
    slots.append(assignment.slot, prompt[assignment.reused_tokens :])
    slots.release(assignment.slot)
    return assignment.slot


def test_a_conversation_comes_back_to_its_slot_past_others_with_the_same_system_prompt() -> None:
    system, one, two = BLOCKS[0], BLOCKS[1] * 3, BLOCKS[2] * 3
    slots = PrefixSlots(3)
    first = ran(slots, system + one)
    second = ran(slots, system + two)
    assert first != second
    assignment = slots.assign(system + one + two)
    assert (assignment.slot, assignment.source, assignment.reused_tokens) == (first, first, 4 * MIN_REUSED_TOKENS)


def test_the_slot_that_is_longest_unused_is_given_away() -> None:
    slots = PrefixSlots(2)
    first, second = ran(slots, BLOCKS[0]), ran(slots, BLOCKS[1])
    assert ran(slots, (*BLOCKS[0], 5)) == first
    assert ran(slots, BLOCKS[2]) == second
