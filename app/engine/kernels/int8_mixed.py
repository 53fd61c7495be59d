"""The part of an int8 product that bitsandbytes computes in 16 bits, on the CPU.

LLM.int8() (arXiv 2208.07339) leaves out the columns with a large activation and adds their product separately. Each
prompt has other columns, and for each number of them oneDNN's bf16 product keeps compiled code: 250 MiB after 500
requests to the demo model. In fp32, to which bitsandbytes widens these weights anyway, it keeps none.
"""

from __future__ import annotations

from typing import Any

import torch

MIXED_PRODUCT = "bitsandbytes::int8_mixed_scaled_mm"


def register() -> None:
    """Registers this product with bitsandbytes for the CPU, unless it has a kernel of its own there."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key(MIXED_PRODUCT, "CPU"):
        torch.library.register_kernel(MIXED_PRODUCT, "cpu", _mixed_product)


def _mixed_product(
    states: torch.Tensor,
    state_bytes: torch.Tensor,
    weight_bytes: torch.Tensor,
    state_scales: torch.Tensor,
    weight_scales: torch.Tensor,
    columns: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, in], [out, in] to [rows, out], and the states of the large `columns`, as bitsandbytes returns them."""
    ops: Any = torch.ops.bitsandbytes
    large = states[:, columns] if columns is not None else states[:, :0]
    dtype = torch.float32 if large.numel() else states.dtype
    result = ops.int8_scaled_mm.default(state_bytes, weight_bytes, state_scales, weight_scales, bias=bias, dtype=dtype)
    if large.numel():
        weight = ops.int8_vectorwise_dequant.default(weight_bytes[:, columns].contiguous(), weight_scales)
        result = result.addmm_(large.float(), weight.t())
    return result.to(states.dtype), large
