"""Products of bf16 weights on a CPU that has no bf16: half of fp32's memory, and twice its speed for few rows.

Few rows are bound by reading the weight, which torch's kernels widen as they read it. For many rows they do so again
for every few of them: so a slice of the weight at a time is widened to fp32 and multiplied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from app.engine.kernels.cpu_kind import form_changes
from app.layouts.cpu_products import WIDENED_ELEMENTS


class Bf16Linear(torch.nn.Linear):
    """x·Wᵀ + b, [..., in] to [..., out], by `bf16_linear`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The product, in bf16."""
        return bf16_linear(input, self.weight, self.bias)

    @staticmethod
    def keeps_code(rows: int) -> bool:
        """Whether oneDNN multiplies so many rows, and keeps compiled code for them (`row_padding`)."""
        changes = form_changes()
        return changes.onednn_bf16 and 1 < rows < (changes.widen_bf16 or 1)


def swap_bf16_linear(model: Any, on_cpu: Callable[[str], bool]) -> None:
    """Replaces the model's empty Linear modules, where `on_cpu` says so of the name, unless the CPU has bf16."""
    if form_changes().widen_bf16 is None:
        return
    linears = [(name, module) for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    for name, plain in linears:
        if on_cpu(name):
            sizes, biased = (plain.in_features, plain.out_features), plain.bias is not None
            model.set_submodule(name, Bf16Linear(*sizes, biased, device="meta", dtype=plain.weight.dtype))


def bf16_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`torch.nn.functional.linear` in bf16, by the form that is the fastest on this CPU for the number of rows.

    Every form sums in fp32.
    """
    rows, widen = x.numel() // x.shape[-1], form_changes().widen_bf16
    if widen is None or weight.dtype != torch.bfloat16 or 1 < rows < widen:
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.reshape(rows, -1)
    if rows == 1:  # `linear` reads the weight at two thirds of the speed
        one = torch.mv(weight, flat[0]) if bias is None else torch.addmv(bias, weight, flat[0])
        return one.view(*x.shape[:-1], -1)
    return _widened(flat, weight, bias).view(*x.shape[:-1], -1)


def _widened(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """[rows, in] to [rows, out]."""
    height, columns = weight.shape
    result, wide = x.new_empty(len(x), height), x.float()
    start = wide.new_zeros(height, 1) if bias is None else bias.float().unsqueeze(1)
    step = max(64, WIDENED_ELEMENTS // columns // 64 * 64)
    scratch = _scratch(max(WIDENED_ELEMENTS, step * columns))
    for first in range(0, height, step):
        part = weight[first : first + step]
        slice_ = scratch[: part.numel()].view(part.shape).copy_(part)
        # The slice comes first: for 12 to 32 rows MKL takes up to 1.6 times as long the other way round on AMD.
        result[:, first : first + step] = torch.addmm(start[first : first + step], slice_, wide.t()).t()
    return result


@functools.cache
def _scratch(elements: int) -> torch.Tensor:
    """Made once; of more than `WIDENED_ELEMENTS` only for rows of more than 16,384 elements."""
    with torch.inference_mode(False):  # else it could not be used outside of it
        return torch.empty(elements)
