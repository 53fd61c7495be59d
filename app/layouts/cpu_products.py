"""Bytes of weights and scratch of the CPU's products; the engine allocates and the plan counts by these."""

from __future__ import annotations

import math

INT8_COLUMNS = 512
"""FBGEMM pads the columns of a packed weight to a multiple of this."""
INT8_ROWS, INT8_ROWS_AVX512 = 8, 48
"""And the rows, by the processor's kind. Measured by glibc's mallinfo2 with torch 2.13."""
INT8_ROW_BYTES = 12
"""A row's sum, scale and zero point."""
INT8_MOST_ROWS = 128
"""Rows that are multiplied at once: bounds the scratch, and more are no faster."""
PIECE_ELEMENTS = 1 << 24
"""Elements of a weight that FBGEMM packs at once: a piece, with its own product."""
INT8_PIECES = 4
"""Pieces that are packed at the same time, while loading."""
INT4_GROUP = 64
"""Elements of a row that share a scale and a zero point."""
INT4_ROWS = 64
"""Rows are padded to a multiple of this, so that each is in a whole block of torch's kernel, of 32 or 64 rows."""
WIDENED_ELEMENTS = 1 << 20
"""Elements of a bf16 weight that are widened to fp32 at once, where the processor has no bf16."""
INT4_SLICE_ELEMENTS = 1 << 20
"""Elements of an int4 weight that are unpacked at once for many rows: in fp32 most processors' caches hold them."""


def int8_bytes(rows: int, columns: int, avx512: bool) -> int:
    """A weight that FBGEMM packed: a byte an element, with the padding."""
    padded = _multiple(rows, INT8_ROWS_AVX512 if avx512 else INT8_ROWS) * _multiple(columns, INT8_COLUMNS)
    return padded + INT8_ROW_BYTES * rows


def int8_piece_rows(columns: int) -> int:
    """Rows of each piece but the last: whole blocks, so that only the last is padded."""
    return max(1, PIECE_ELEMENTS // columns // INT8_ROWS_AVX512) * INT8_ROWS_AVX512


def int4_bytes(rows: int, columns: int) -> int:
    """Half a byte an element, and for each group a scale and a zero point in bf16."""
    return int4_rows(rows) * (columns // 2 + 4 * columns // INT4_GROUP)


def int4_rows(rows: int) -> int:
    """Rows of the packed weight."""
    return _multiple(rows, INT4_ROWS)


def _multiple(count: int, of: int) -> int:
    return math.ceil(count / of) * of
