"""A mixture of experts on the CPU: one expert after the other, with few sizes of products."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from app.engine.kernels.bf16_linear import bf16_linear
from app.engine.kernels.row_padding import padded_rows

EXPERTS_IMPLEMENTATION = "berth"
"""The name under which transformers finds it among its own."""


def steer_experts(model: Any) -> None:
    """Makes a mixture of experts compute by `experts_forward` in layers that are on the CPU."""
    moe: Any = importlib.import_module("transformers.integrations.moe")

    def by_device(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        forward = experts_forward if hidden.device.type == "cpu" else moe.grouped_mm_experts_forward
        result: torch.Tensor = forward(experts, hidden, chosen, weights)
        return result

    moe.ALL_EXPERTS_FUNCTIONS.register(EXPERTS_IMPLEMENTATION, by_device)
    model.config._experts_implementation = EXPERTS_IMPLEMENTATION


def experts_forward(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Computes transformers' fused experts, one expert after the other.

    `hidden` is [tokens, hidden], `chosen` and `weights` [tokens, experts a token]; returns [tokens, hidden]. Sums are
    in fp32, as in `grouped_mm_experts_forward` of transformers 5.23, which stores all chosen pairs at once.
    """
    result = torch.zeros_like(hidden, dtype=torch.float32)
    for expert in sorted(set(chosen.flatten().tolist())):
        tokens, ranks = torch.where(chosen == expert)
        rows = hidden.new_zeros(padded_rows(len(tokens)), hidden.shape[-1])
        rows[: len(tokens)] = hidden[tokens]
        gate, up = bf16_linear(rows, experts.gate_up_proj[expert]).chunk(2, dim=-1)
        rows = bf16_linear(experts.act_fn(gate) * up, experts.down_proj[expert])[: len(tokens)]
        result.index_add_(0, tokens, rows * weights[tokens, ranks, None].float())
    return result.to(hidden.dtype)
