"""A mixture of experts on the CPU: one expert after the other, each with few sizes of products."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from app.engine.kernels.row_padding import filled_up

NAME = "berth"
"""Of the experts' computation, among transformers' own."""


def steer_experts(model: Any) -> None:
    """Makes a mixture of experts compute by `experts_forward` where its layers lie on the CPU."""
    moe: Any = importlib.import_module("transformers.integrations.moe")

    def by_device(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        own = hidden.device.type == "cpu"
        forward = experts_forward if own else moe.grouped_mm_experts_forward
        result: torch.Tensor = forward(experts, hidden, chosen, weights)
        return result

    moe.ALL_EXPERTS_FUNCTIONS.register(NAME, by_device)
    model.config._experts_implementation = NAME


def experts_forward(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What transformers' fused experts compute, one expert after the other.

    `hidden` is [tokens, hidden], `chosen` and `weights` [tokens, experts a token]; returns [tokens, hidden]. Sums are
    kept in fp32, as `grouped_mm_experts_forward` of transformers 5.23 does, which stores all chosen pairs at once.
    """
    result = torch.zeros_like(hidden, dtype=torch.float32)
    for expert in sorted(set(chosen.flatten().tolist())):
        tokens, places = torch.where(chosen == expert)
        rows = hidden.new_zeros(filled_up(len(tokens)), hidden.shape[-1])
        rows[: len(tokens)] = hidden[tokens]
        gate, up = torch.nn.functional.linear(rows, experts.gate_up_proj[expert]).chunk(2, dim=-1)
        rows = torch.nn.functional.linear(experts.act_fn(gate) * up, experts.down_proj[expert])[: len(tokens)]
        result.index_add_(0, tokens, rows * weights[tokens, places, None].float())
    return result.to(hidden.dtype)
