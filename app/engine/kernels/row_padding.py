"""Pads the rows of products on the CPU, so that products have few sizes.

For each number of rows and each weight shape, oneDNN's bf16 product keeps compiled code, some 0.7 MB in torch 2.13 on a
processor with AMX: 354 MB for one weight and 1 to 512 rows, 107 MB less with its cache off
(`ONEDNN_PRIMITIVE_CACHE_CAPACITY`). Prompts end anywhere, experts get any number of tokens, and latent attention's
context grows by a token a step; so rows are padded to one of a few sizes.
"""

from __future__ import annotations

from typing import Any

import torch

from app.layouts.nf4 import WIDE_ROWS

LARGE_STEP = 64
SMALL_SIZES = (1, 16, 32, 48, 64, 80, 96, 112, 128)
"""Finer, since most prompts of a chat are this short: 80 tokens would pay for 128."""


def padded_rows(rows: int) -> int:
    """The least size that is not smaller: 1, a multiple of 16 up to 128, or a multiple of 64."""
    return next((size for size in SMALL_SIZES if rows <= size), -(-rows // LARGE_STEP) * LARGE_STEP)


def unpadded_rows(rows: int) -> int:
    """The largest size that is not larger."""
    if rows >= SMALL_SIZES[-1]:
        return rows // LARGE_STEP * LARGE_STEP
    return max(size for size in SMALL_SIZES if size <= rows)


def padded_batch(rows: int) -> int:
    """The least power of two that is not smaller: batches are small, and each further row costs time."""
    return 1 << (rows - 1).bit_length()


def padded_sizes(chunk: int, slots: int) -> list[int]:
    """All numbers of rows that products may have, ascending."""
    prompts = {padded_rows(rows) for rows in range(1, chunk + 1)}
    return sorted(prompts | {padded_batch(rows) for rows in range(1, slots + 1)})


def warm_up_slices(model: Any, max_rows: int) -> None:
    """Multiplies up to `max_rows` by a weight of each shape of packed int4's slices (see nf4_linear).

    So what oneDNN keeps for each is allocated below the activations of later passes; between them it would leave gaps.
    """
    shapes = {shape for module in model.modules() for shape in getattr(module, "slices", ())}
    for rows in range(WIDE_ROWS, max_rows + WIDE_ROWS, WIDE_ROWS):
        for shape in sorted(shapes):
            x, weight = torch.zeros(rows, shape[1], dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16)
            torch.nn.functional.linear(x, weight)
