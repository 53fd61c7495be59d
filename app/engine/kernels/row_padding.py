"""Few sizes of products on the CPU.

For each number of rows and each weight shape that it meets, oneDNN's bf16 product keeps compiled code, some 0.7 MB in
torch 2.13 on a processor with AMX: 354 MB for one weight and 1 to 512 rows, 107 of them back when its cache is off
(`ONEDNN_PRIMITIVE_CACHE_CAPACITY`). Prompts end anywhere, experts get any number of tokens, and latent attention's
context grows by a token a step; so rows are filled up to one of a few sizes.
"""

from __future__ import annotations

from typing import Any

import torch

from app.layouts.nf4 import WIDE_ROWS

STEP = 64
SMALL = (1, 16, 32, 48, 64, 80, 96, 112, 128)
"""Finer where most prompts of a chat are: 80 tokens would pay for 128."""


def filled_up(rows: int) -> int:
    """The least size that holds so many rows: 1, a multiple of 16 up to 128, or of 64."""
    return next((size for size in SMALL if rows <= size), -(-rows // STEP) * STEP)


def filled_down(rows: int) -> int:
    """The largest size that so many rows fill."""
    return rows // STEP * STEP if rows >= SMALL[-1] else max(size for size in SMALL if size <= rows)


def filled_up_batch(rows: int) -> int:
    """The least power of two that holds so many rows: batches are small, and each row more is felt."""
    return 1 << (rows - 1).bit_length()


def pass_sizes(chunk: int, slots: int) -> list[int]:
    """All numbers of rows that products may have, ascending."""
    prompts = {filled_up(rows) for rows in range(1, chunk + 1)}
    return sorted(prompts | {filled_up_batch(rows) for rows in range(1, slots + 1)})


def meet_slices(model: Any, most: int) -> None:
    """Multiplies up to `most` rows with a weight of each shape that packed int4 has in slices (see nf4_linear).

    What oneDNN keeps of each lies below a pass's activations then; between them it would leave gaps.
    """
    shapes = {shape for module in model.modules() for shape in getattr(module, "slices", ())}
    for rows in range(WIDE_ROWS, most + WIDE_ROWS, WIDE_ROWS):
        for shape in sorted(shapes):
            x, weight = torch.zeros(rows, shape[1], dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16)
            torch.nn.functional.linear(x, weight)
