"""What a forward pass looks at: which rows of the KV cache, for a chunk of a prompt, a batch of steps, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from app.engine.kernels.row_padding import filled_up

LENGTH_RATIO = 2
"""Rows whose lengths differ by more do not attend together: the short ones would pay for the long ones."""
FEW_KEYS = 256
"""Below, lengths do not matter."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A forward pass appends tokens `start` to `end` of one slot's sequence."""

    slot: int
    start: int
    end: int
    rows: int
    """Of its attention: the tokens, and behind them what fills up (see `rows`) and leaves no trace."""
    width: int
    """Keys that are looked at: those up to `end`, and behind them what fills up."""
    mask: torch.Tensor | None = None
    """[rows, width], true where a row sees a key; None where that is plainly causal."""

    @property
    def tokens(self) -> int:
        """New ones."""
        return self.end - self.start

    @property
    def last(self) -> Chunk:
        """Its last token alone."""
        return Chunk(slot=self.slot, start=self.end - 1, end=self.end, rows=1, width=self.end)


@dataclass(frozen=True)
class Group:
    """Rows of a batch that attend together: `rows` in the batch are `slots` of its span, both without gaps."""

    rows: slice
    slots: slice
    width: int
    """Keys that the longest of them sees."""
    mask: torch.Tensor | None
    """[rows, 1, 1, width], true where a row sees a key; None where all see all."""


@dataclass(frozen=True)
class Batch:
    """A forward pass appends one token to each of several slots: row i to slot `slots[i]` at `positions[i]`.

    Rows behind those are there to fill up (see `rows`) and leave no trace.
    """

    slots: torch.Tensor
    positions: torch.Tensor
    span: slice
    """The slots from the first to the last of them: what latent attention expands."""
    width: int
    groups: tuple[Group, ...]

    @property
    def tokens(self) -> int:
        """New ones."""
        return len(self.slots)

    @property
    def end(self) -> int:
        """Behind the last place that is written."""
        return self.width


@dataclass(frozen=True)
class Rows:
    """A forward pass appends a token to each of several slots, said by tensors alone, so that it can be recorded."""

    slots: torch.Tensor
    """[rows]; where nothing is `copied`, 0 and up."""
    positions: torch.Tensor
    """[rows]"""
    width: int
    """Tokens that are looked at; a row that is beyond them is idle."""
    bias: torch.Tensor
    """[rows, 1, 1, width], added to the scores."""
    copied: bool
    """Keys and values are copied from the slots; else seen where they lie."""

    @property
    def tokens(self) -> int:
        """New ones."""
        return len(self.slots)

    @property
    def end(self) -> int:
        """Behind the last token that is looked at."""
        return self.width


Window = Chunk | Batch | Rows
Windows = Mapping[torch.device, Window]
"""The same window for each device that layers lie on."""


def chunk_window(slot: int, start: int, end: int, device: torch.device, filled_to: int | None = None) -> Chunk:
    """The window for tokens `start` to `end` of one slot's sequence.

    For the CPU its rows and keys are filled up to few sizes, `filled_to` being the tokens of a slot: for each number of
    keys the bf16 kernel keeps compiled code, too.
    """
    rows, width = end - start, end
    if filled_to is not None and rows > 1:
        rows, width = filled_up(rows), min(filled_up(end), filled_to)
    mask = None
    if start > 0 and rows > 1:
        mask = torch.arange(width, device=device) <= torch.arange(start, start + rows, device=device)[:, None]
    return Chunk(slot=slot, start=start, end=end, rows=rows, width=width, mask=mask)


def batch_window(slots: Sequence[int], positions: Sequence[int], device: torch.device) -> Batch:
    """The window for one new token in each of `slots` (ascending) at `positions`."""
    rows = torch.tensor(list(slots), device=device)
    places = torch.tensor(list(positions), device=device)
    groups = tuple(_group(first, last, slots, positions, device) for first, last in _runs(slots, positions))
    return Batch(rows, places, slice(slots[0], slots[-1] + 1), max(positions) + 1, groups)


def _runs(slots: Sequence[int], positions: Sequence[int]) -> list[tuple[int, int]]:
    """Rows from first to behind last that lie side by side in the cache and are of like length."""
    runs: list[tuple[int, int]] = []
    first, low, high = 0, positions[0], positions[0]
    for row in range(1, len(slots)):
        here = positions[row]
        low, high = min(low, here), max(high, here)
        if slots[row] != slots[row - 1] + 1 or (high > FEW_KEYS and high > LENGTH_RATIO * low):
            runs.append((first, row))
            first, low, high = row, here, here
    return [*runs, (first, len(slots))]


def _group(first: int, last: int, slots: Sequence[int], positions: Sequence[int], device: torch.device) -> Group:
    lengths = [position + 1 for position in positions[first:last]]
    width = max(lengths)
    mask = None
    if min(lengths) < width:
        seen = torch.arange(width, device=device) < torch.tensor(lengths, device=device)[:, None]
        mask = seen[:, None, None, :]
    return Group(slice(first, last), slice(slots[first] - slots[0], slots[last - 1] + 1 - slots[0]), width, mask)
