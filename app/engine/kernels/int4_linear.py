"""int4 weights on the CPU, by torch's own kernel: groups of 64 elements with a scale and a zero point each.

The kernel unpacks the weight again for every four rows. So for many rows a slice of the weight at a time is unpacked
and multiplied by oneDNN or MKL.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from app.engine.kernels.cpu_kind import cpu_kind, form_changes
from app.layouts.cpu_products import INT4_GROUP, INT4_ROWS, INT4_SLICE_ELEMENTS, int4_rows
from app.layouts.nf4 import WIDE_ROWS

LOW_HALVES = 0x0F0F0F0F0F0F0F0F
RANGES = (1.0, 0.9, 0.8)
"""Shares of a group's range that are tried; the one of least squared error is taken."""
SEARCH_ELEMENTS = 1 << 18
"""Elements that are quantised at once, for the same reason."""


class Int4Linear(torch.nn.Module):
    """x·Wᵀ + b, [..., in] to [..., out]."""

    def __init__(self, in_features: int, out_features: int, bias: torch.nn.Parameter | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        rows = int4_rows(out_features)
        self.register_buffer("codes", torch.empty(rows, in_features // 2, dtype=torch.uint8, device="meta"))
        groups = torch.empty(in_features // INT4_GROUP, rows, 2, dtype=torch.bfloat16, device="meta")
        self.register_buffer("groups", groups)
        self.codes: torch.Tensor
        """[rows, in / 2], in the kernel's order (see `_unpacked`)."""
        self.groups: torch.Tensor
        """[in / 64, rows, 2]: scale and zero point; an element is (code - 8) · scale + zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product, in the dtype of `x`."""
        flat = x.reshape(-1, self.in_features)
        wide = self._many_rows(flat) if len(flat) >= form_changes().unpack_int4 else self._few_rows(flat)
        result = wide[:, : self.out_features]
        if self.bias is not None:
            result = result + self.bias
        return result.reshape(*x.shape[:-1], self.out_features)

    def _few_rows(self, x: torch.Tensor) -> torch.Tensor:
        # With fp32 activations the kernel takes ten times as long.
        narrow = x.to(torch.bfloat16)
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        result: torch.Tensor = product(narrow, self.codes, INT4_GROUP, self.groups)
        return result.to(x.dtype)

    def _many_rows(self, x: torch.Tensor) -> torch.Tensor:
        dtype = torch.bfloat16 if cpu_kind() == "bf16" else torch.float32
        # Of bf16 products oneDNN keeps code for each number of rows (row_padding): few numbers, which the plan counts.
        padding = -len(x) % WIDE_ROWS if dtype == torch.bfloat16 else 0
        inputs = torch.nn.functional.pad(x.to(dtype), (0, 0, 0, padding))
        rows = len(self.codes)
        result = x.new_empty(len(x), rows)
        step = max(1, INT4_SLICE_ELEMENTS // self.in_features // INT4_GROUP) * INT4_GROUP
        for first in range(0, rows, step):
            last = min(first + step, rows)
            weight = _unpacked(self.codes[first:last], self.groups[:, first:last], dtype)
            result[:, first:last] = torch.mm(inputs, weight)[: len(x)]
        return result


def joined(parts: Sequence[Int4Linear]) -> Int4Linear | None:
    """One product with the outputs of all; None if the rows of one are padded."""
    if any(part.out_features % INT4_ROWS for part in parts):
        return None
    biases: list[torch.Tensor] = [part.bias for part in parts if part.bias is not None]
    bias = torch.nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
    module = Int4Linear(parts[0].in_features, sum(part.out_features for part in parts), bias)
    module.codes = torch.cat([part.codes for part in parts])
    module.groups = torch.cat([part.groups for part in parts], dim=1)
    return module


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int4 codes [rows, columns] as int32, and each group's scale and zero point, [rows, columns / 64, 2] in bf16."""
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=torch.int32)
    groups = torch.empty(rows, columns // INT4_GROUP, 2, dtype=torch.bfloat16)
    step = max(1, SEARCH_ELEMENTS // columns)
    for first in range(0, rows, step):
        part = weight[first : first + step].float().view(-1, columns // INT4_GROUP, INT4_GROUP)
        best, scale, low = _search(part)
        codes[first : first + step] = best.view(-1, columns)
        groups[first : first + step] = torch.cat([scale, low + 8 * scale], dim=-1)
    return codes, groups


def packed_codes(codes: torch.Tensor) -> torch.Tensor:
    """The kernel's form, [rows, columns / 2], of int32 codes [rows, columns]; rows are a multiple of 64."""
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return packed


def _search(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of groups [rows, groups, 64]: codes, scale and lowest value [rows, groups, 1] of the range with the least error.

    The scale is rounded to bf16 first, so that codes fit the scale that is stored.
    """
    low, high = part.amin(-1, keepdim=True), part.amax(-1, keepdim=True)
    best: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    least = torch.empty(0)
    for share in RANGES:
        scale = ((high - low) * (share / 15)).clamp_min_(1e-30).to(torch.bfloat16).float()
        first = low * share
        zero = (first + 8 * scale).to(torch.bfloat16).float()
        first = zero - 8 * scale
        codes = ((part - first) / scale).round_().clamp_(0, 15)
        error = torch.addcmul(first, codes, scale).sub_(part).square_().sum(-1, keepdim=True)
        if best is None:
            best, least = (codes, scale, first), error
            continue
        better = error < least
        best = (
            torch.where(better, codes, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, first, best[2]),
        )
        least = torch.minimum(least, error)
    assert best is not None
    return best


def _unpacked(codes: torch.Tensor, groups: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows of a weight, transposed: [columns, rows].

    Codes are in blocks of 64 rows with AVX-512, else of 32: for each column, a byte has a row in its low half, and in
    its high half the row that is half a block below (torch 2.13, `_convert_weight_to_int4pack_cpu`). Eight bytes at a
    time are taken apart.
    """
    block = 64 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 32
    rows, columns = len(codes), 2 * codes.shape[1]
    stored = codes.view(rows // block, columns, block // 2).view(torch.int64).transpose(0, 1)
    halves = stored.new_empty(columns, rows // block, 2, block // 16)
    torch.bitwise_and(stored, LOW_HALVES, out=halves[:, :, 0])
    torch.bitwise_right_shift(stored, 4, out=halves[:, :, 1]).bitwise_and_(LOW_HALVES)
    weight = halves.view(torch.uint8).view(columns // INT4_GROUP, INT4_GROUP, rows).float()
    scale, zero = groups.float().unbind(-1)
    torch.addcmul((zero - 8 * scale)[:, None], weight, scale[:, None], out=weight)
    return weight.view(columns, rows).to(dtype)
