"""The sizes of decode steps that are recorded as CUDA graphs: the plan counts them, the engine records them."""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 4
"""Factor from one size to the next; the last two may be closer. Graphs are few, and little is computed in vain."""
LEAST_WIDTH = 512


@dataclass(frozen=True)
class StepSize:
    """A step of one token for each of `rows` sequences, with up to `width` keys each."""

    rows: int
    width: int


def step_sizes(slots: int, max_model_len: int, one_row_alone: bool) -> tuple[StepSize, ...]:
    """All sizes, ascending; with `one_row_alone` only those for a single sequence."""
    rows = (1,) if one_row_alone else _sizes(1, slots)
    return tuple(StepSize(row, width) for row in rows for width in _sizes(LEAST_WIDTH, max_model_len))


def _sizes(first: int, last: int) -> tuple[int, ...]:
    sizes: list[int] = []
    while 2 * first <= last:
        sizes.append(first)
        first *= GROWTH
    return (*sizes, last)
