"""The part of the KV cache that a forward pass writes and reads, for a chunk of a prompt or a batch of decode steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from app.engine.kernels.row_padding import padded_rows

LENGTH_RATIO = 2
"""Rows whose lengths differ by more do not attend together: the short ones would pay for the long ones."""
MIN_KEYS = 256
"""Up to this many keys, lengths do not matter."""


@dataclass(frozen=True, kw_only=True)
class ChunkWindow:
    """A forward pass appends tokens `start` to `end` of one slot's sequence."""

    slot: int
    start: int
    end: int
    rows: int
    """Rows of its attention: the tokens, then padding (see `row_padding`), which is never written."""
    width: int
    """Keys that are read: those up to `end`, then padding."""
    mask: torch.Tensor | None = None
    """[rows, width], true if a row sees a key; None if the mask is plainly causal."""

    @property
    def tokens(self) -> int:
        """Number of new tokens."""
        return self.end - self.start

    @property
    def last(self) -> ChunkWindow:
        """The window of its last token alone."""
        return ChunkWindow(slot=self.slot, start=self.end - 1, end=self.end, rows=1, width=self.end)


@dataclass(frozen=True)
class RowGroup:
    """Rows of a batch that attend together: `rows` of the batch are `slots` of its span, both contiguous."""

    rows: slice
    slots: slice
    width: int
    """Keys that the longest of them sees."""
    mask: torch.Tensor | None
    """[rows, 1, 1, width], true if a row sees a key; None if all rows see all keys."""


@dataclass(frozen=True)
class BatchWindow:
    """A forward pass appends one token to each of several slots: row i to slot `slots[i]` at `positions[i]`.

    Later rows are padding (see `row_padding`) and are never written.
    """

    slots: torch.Tensor
    positions: torch.Tensor
    span: slice
    """The slots from the first to the last of them: those that latent attention expands."""
    width: int
    groups: tuple[RowGroup, ...]

    @property
    def tokens(self) -> int:
        """Number of new tokens."""
        return len(self.slots)

    @property
    def end(self) -> int:
        """The position after the last that is written."""
        return self.width


@dataclass(frozen=True)
class GraphWindow:
    """A forward pass appends a token to each of several slots, given by tensors alone, so that it can be recorded."""

    slots: torch.Tensor
    """[rows]; unless `copied`, these are 0 and up."""
    positions: torch.Tensor
    """[rows]"""
    width: int
    """Keys that are read; a row at a later position is idle."""
    bias: torch.Tensor
    """[rows, 1, 1, width], added to the scores."""
    copied: bool
    """Whether keys and values are copied from the slots; otherwise they are read in place."""

    @property
    def tokens(self) -> int:
        """Number of new tokens."""
        return len(self.slots)

    @property
    def end(self) -> int:
        """The position after the last that is read."""
        return self.width


Window = ChunkWindow | BatchWindow | GraphWindow
Windows = Mapping[torch.device, Window]
"""The same window on each device that has layers."""


def chunk_window(slot: int, start: int, end: int, device: torch.device, slot_tokens: int | None = None) -> ChunkWindow:
    """The window for tokens `start` to `end` of one slot's sequence.

    `slot_tokens`, the size of a slot, is given on the CPU: there rows and keys are padded to few sizes, since the bf16
    kernel keeps compiled code for each number of keys, too.
    """
    rows, width = end - start, end
    if slot_tokens is not None and rows > 1:
        rows, width = padded_rows(rows), min(padded_rows(end), slot_tokens)
    mask = None
    if start > 0 and rows > 1:
        mask = torch.arange(width, device=device) <= torch.arange(start, start + rows, device=device)[:, None]
    return ChunkWindow(slot=slot, start=start, end=end, rows=rows, width=width, mask=mask)


def batch_window(slots: Sequence[int], positions: Sequence[int], device: torch.device) -> BatchWindow:
    """The window for one new token in each of `slots` (ascending) at `positions`."""
    row_slots = torch.tensor(list(slots), device=device)
    row_positions = torch.tensor(list(positions), device=device)
    groups = tuple(_row_group(first, last, slots, positions, device) for first, last in _runs(slots, positions))
    return BatchWindow(row_slots, row_positions, slice(slots[0], slots[-1] + 1), max(positions) + 1, groups)


def _runs(slots: Sequence[int], positions: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of rows, [first, last), whose slots are contiguous and whose lengths are similar."""
    runs: list[tuple[int, int]] = []
    first, low, high = 0, positions[0], positions[0]
    for row in range(1, len(slots)):
        position = positions[row]
        low, high = min(low, position), max(high, position)
        if slots[row] != slots[row - 1] + 1 or (high > MIN_KEYS and high > LENGTH_RATIO * low):
            runs.append((first, row))
            first, low, high = row, position, position
    return [*runs, (first, len(slots))]


def _row_group(first: int, last: int, slots: Sequence[int], positions: Sequence[int], device: torch.device) -> RowGroup:
    lengths = [position + 1 for position in positions[first:last]]
    width = max(lengths)
    mask = None
    if min(lengths) < width:
        visible = torch.arange(width, device=device) < torch.tensor(lengths, device=device)[:, None]
        mask = visible[:, None, None, :]
    return RowGroup(slice(first, last), slice(slots[first] - slots[0], slots[last - 1] + 1 - slots[0]), width, mask)
