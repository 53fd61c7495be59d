"""Sizes of nf4 weights as bitsandbytes' CPU kernel packs them, and of products of many rows; the plan counts them."""

from __future__ import annotations

from collections.abc import Iterator

NF4_BLOCK = 64
"""Elements that share a scale."""
ABSMAX_BLOCK = 256
"""Scales that share a scale if they are quantised too."""
PACKED_ROWS = 32
"""Rows that are packed together."""
WIDE_ROWS = 128
"""Many rows are padded to a multiple of this."""
SLICE_ELEMENTS = 1 << 21
"""Elements of a weight that are unpacked at once."""


def row_slices(rows: int, columns: int, most: int = SLICE_ELEMENTS) -> Iterator[tuple[int, int]]:
    """First row and row after the last of each slice of a weight: at most `most` elements, but at least 32 rows."""
    step = max(PACKED_ROWS, most // columns // PACKED_ROWS * PACKED_ROWS)
    yield from ((start, min(start + step, rows)) for start in range(0, rows, step))
