"""Which decode steps a GPU gets ready-made (CUDA graphs): the plan counts them, the engine records them."""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 4
"""From one size to the next; the last two may lie closer. Few graphs, and little that is computed for nothing."""
LEAST_WIDTH = 512


@dataclass(frozen=True)
class StepSize:
    """One token each for `rows` sequences, which see up to `width` tokens."""

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
