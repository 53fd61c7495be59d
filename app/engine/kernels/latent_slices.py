"""Latent attention on the CPU: each step multiplies the whole context, a slice at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from app.engine.kernels.row_padding import padded_rows

SLICE_ROWS = 512


def slice_latents(model: Any, everywhere: bool) -> None:
    """Makes latent attention, which multiplies the whole context at each step, do so in slices of `SLICE_ROWS`.

    On the CPU; `everywhere` is for int8, where bitsandbytes 0.50.2 takes eight times the output's memory and refuses
    the four dimensions that it gets.
    """

    def sliced(forward: Callable[[torch.Tensor], torch.Tensor], width: int, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., width]."""
        if x.device.type != "cpu" and not everywhere:
            return forward(x)
        flat = x.reshape(-1, x.shape[-1])
        result = x.new_empty(len(flat), width)
        for start in range(0, len(flat), SLICE_ROWS):
            part = flat[start : start + SLICE_ROWS]
            padding = padded_rows(len(part)) - len(part)
            result[start : start + SLICE_ROWS] = forward(torch.nn.functional.pad(part, (0, 0, 0, padding)))[: len(part)]
        return result.view(*x.shape[:-1], width)

    for layer in model.model.layers:
        product = layer.self_attn.kv_b_proj
        product.forward = functools.partial(sliced, product.forward, product.out_features)
