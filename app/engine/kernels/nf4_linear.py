"""nf4 products on the CPU, for weights that are stored so.

Where a CPU has AVX-512 with bf16, bitsandbytes packs the weights. Its kernel unpacks the weight again for every few
rows: with 512 rows it takes ten times as long as oneDNN's bf16 product. So for many rows a slice of the weight at a
time is unpacked and multiplied by oneDNN. On other CPUs it unpacks the whole weight at each call.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from app.engine.kernels.bf16_linear import bf16_linear
from app.engine.kernels.bnb import bnb_functional, bnb_nn
from app.layouts.nf4 import NF4_BLOCK, PACKED_ROWS, SLICE_ELEMENTS, WIDE_ROWS, row_slices

MIN_ROWS = 64
"""From this many rows on unpacking is no slower. Measured on two cores with AMX, 8192 x 1024: 64 rows 6.1 ms against
7.3, 128 6.6 against 14.8, 512 10.5 against 58.4."""


class PackedNf4Linear(bnb_nn.Linear4bit):  # type: ignore[misc]
    """x·Wᵀ + b, [..., in] to [..., out]; the weight is packed."""

    @property
    def slices(self) -> set[tuple[int, int]]:
        """Shapes of the slices, [out, in], that oneDNN multiplies by many rows."""
        return {(end - start, self.in_features) for start, end in row_slices(self.out_features, self.in_features)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product, in the dtype of `x`."""
        rows = x.numel() // x.shape[-1]
        if rows < MIN_ROWS:
            result: torch.Tensor = super().forward(x)
            return result
        padding = -rows % WIDE_ROWS
        wide = torch.nn.functional.pad(x.reshape(rows, -1).to(torch.bfloat16), (0, 0, 0, padding))
        result = x.new_empty(rows, self.out_features)
        for start, end in row_slices(self.out_features, self.in_features):
            weight = unpacked(self.weight.data[start:end], self.weight.quant_state.absmax[:, start:end])
            result[:, start:end] = torch.nn.functional.linear(wide, weight)[:rows]
        if self.bias is not None:
            result += self.bias.to(result.dtype)
        return result.view(*x.shape[:-1], self.out_features)


class UnpackedNf4Linear(bnb_nn.Linear4bit):  # type: ignore[misc]
    """x·Wᵀ + b, [..., in] to [..., out], on a CPU without bf16; the weight is unpacked to bf16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product, in bf16."""
        weight = bnb_functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return bf16_linear(x, weight.to(x.dtype), self.bias)


def unpacked(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Rows of a weight in bf16, [rows, columns], from bitsandbytes 0.50.2's packed form.

    `codes` are [rows, columns / 2] bytes: of each 32 rows and 2 columns, byte 2·r + c has row r in its low half and row
    16 + r in its high one (`_convert_weight_packed_for_cpu`). `scales` are [columns / 64, rows].
    """
    rows, half = codes.shape
    blocks, below = rows // PACKED_ROWS, PACKED_ROWS // 2
    size = 3 * rows * half // 2
    pairs, first, second = _scratch(max(size, 3 * SLICE_ELEMENTS // 4))[:size].view(3, blocks, below, half)
    plain = codes.new_empty(blocks, 2, below, half)
    # Two bytes: a row's two columns, and those of the row 16 below.
    pairs.copy_(codes.view(torch.int16).view(blocks, half, below).transpose(1, 2))
    torch.bitwise_and(pairs, 0x0F, out=first).bitwise_left_shift_(4)
    torch.bitwise_right_shift(pairs, 8, out=second).bitwise_and_(0x0F)
    plain[:, 0] = first.bitwise_or_(second)
    torch.bitwise_and(pairs, 0xF0, out=first)
    plain[:, 1] = first.bitwise_or_(pairs.bitwise_right_shift_(12).bitwise_and_(0x0F))
    ops: Any = torch.ops.bitsandbytes
    weight: torch.Tensor = ops.dequantize_4bit.default(
        plain.view(-1), scales.t().float().reshape(-1), NF4_BLOCK, "nf4", (rows, 2 * half), torch.bfloat16
    )
    return weight


@functools.lru_cache(maxsize=1)
def _scratch(elements: int) -> torch.Tensor:
    """A buffer of so many 16-bit integers, the same at each call: freed buffers would fragment the heap."""
    with torch.inference_mode(False):  # otherwise only code in that mode could write to it
        return torch.empty(elements, dtype=torch.int16)
