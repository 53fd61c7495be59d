"""The part of an int8 product that bitsandbytes computes in 16 bits, on the CPU.

LLM.int8() (arXiv 2208.07339) leaves out the columns in which an activation is large and adds their product by itself.
They are others for each prompt, and for each number of them oneDNN's bf16 product keeps compiled code: 250 MiB after
500 requests to the demo model. In fp32, to which bitsandbytes widens these weights anyway, none is kept.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "bitsandbytes::int8_mixed_scaled_mm"


def register() -> None:
    """Makes bitsandbytes compute so on the CPU, unless it has a kernel of its own for it there."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key(NAME, "CPU"):
        torch.library.register_kernel(NAME, "cpu", _mixed_product)


def _mixed_product(
    states: torch.Tensor,
    state_bytes: torch.Tensor,
    weight_bytes: torch.Tensor,
    state_scales: torch.Tensor,
    weight_scales: torch.Tensor,
    columns: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, in], [out, in] to [rows, out]; also the states of the `columns` that are large, like bitsandbytes."""
    ops: Any = torch.ops.bitsandbytes
    large = states[:, columns] if columns is not None else states[:, :0]
    dtype = torch.float32 if large.numel() else states.dtype
    result = ops.int8_scaled_mm.default(state_bytes, weight_bytes, state_scales, weight_scales, bias=bias, dtype=dtype)
    if large.numel():
        weight = ops.int8_vectorwise_dequant.default(weight_bytes[:, columns].contiguous(), weight_scales)
        result = result.addmm_(large.float(), weight.t())
    return result.to(states.dtype), large
