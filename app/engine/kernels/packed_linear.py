"""Weights of bf16 products on the CPU, stored in the order in which oneDNN's kernels read them.

A plain product reorders its weight at every call, or reads it unordered. Measured on two cores with AVX-512 bf16, a
layer's weights of 13 M elements: 1.36 against 1.9 ms for 1 row, 1.6 against 2.5 for 16, 2.7 against 3.6 for 32, 9
against 10.3 for 128.
"""

from __future__ import annotations

from typing import Any

import torch

from app.engine.kernels.cpu_kind import cpu_kind

ROWS_HINT = 32
"""The number of rows that the order is chosen for. One for 16 is much slower at 64 on some processors; this is not."""
PADDING_FREE = 64
"""Sizes that are multiples of this are packed without padding: the packed weight takes the plain one's bytes."""


class PackedLinear(torch.nn.Module):
    """x·Wᵀ + b, [..., in] to [..., out]."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.bias = plain.bias
        self._packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(plain.weight.data, ROWS_HINT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return result


def can_pack() -> bool:
    """Whether this build of torch has packed products, and the processor bf16 (see `bf16_linear` for others)."""
    ops = torch.ops.mkldnn
    return cpu_kind() == "bf16" and all(hasattr(ops, op) for op in ("_reorder_linear_weight", "_linear_pointwise"))


def pack_linear(model: Any, free_bytes: int) -> int:
    """Packs the model's plain bf16 products on the CPU, one after the other; returns how many.

    While a weight is packed it is in memory twice: weights larger than `free_bytes` stay plain, and so does a head
    that is the embedding too.
    """
    if not can_pack():
        return 0
    embedding = model.model.embed_tokens.weight
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear
        and "forward" not in vars(module)  # sliced (`latent_slices`): packed, it would be one product again
        and module.weight is not embedding
        and module.weight.dtype == torch.bfloat16
        and module.weight.device.type == "cpu"
        and module.weight.nbytes <= free_bytes
        and module.in_features % PADDING_FREE == 0 == module.out_features % PADDING_FREE
    ]
    for name in names:
        model.set_submodule(name, PackedLinear(model.get_submodule(name)))
    return len(names)
