"""Few sizes of products on the CPU.

For each number of rows and each weight shape that it meets, oneDNN's bf16 product keeps compiled code, some 0.7 MB in
torch 2.13 on a processor with AMX: 354 MB for one weight and 1 to 512 rows, 107 of them back when its cache is off
(`ONEDNN_PRIMITIVE_CACHE_CAPACITY`). Prompts end anywhere, experts get any number of tokens, and latent attention's
context grows by a token a step; so rows are filled up to one of a few sizes.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch

from app.layouts.nf4 import WIDE_ROWS

STEP = 64
SMALL = (1, 16, 32, 48, 64, 80, 96, 112, 128)
"""Finer where most prompts of a chat are: 80 tokens would pay for 128."""
SLICE = 512
NAME = "berth"
"""Of the experts' computation, among transformers' own."""


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
    """Multiplies up to `most` rows with a weight of each shape that packed int4 has in slices (`app.engine.int4`).

    What oneDNN keeps of each lies below a pass's activations then; between them it would leave gaps.
    """
    shapes = {shape for module in model.modules() for shape in getattr(module, "slices", ())}
    for rows in range(WIDE_ROWS, most + WIDE_ROWS, WIDE_ROWS):
        for shape in sorted(shapes):
            x, weight = torch.zeros(rows, shape[1], dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16)
            torch.nn.functional.linear(x, weight)


def slice_latents(model: Any, everywhere: bool) -> None:
    """Lets latent attention, which multiplies the whole context at each step, do so in slices of `SLICE` rows.

    On the CPU; `everywhere` for int8, where bitsandbytes 0.50.2 takes eight times the output for itself and refuses
    the four dimensions that it is given.
    """

    def sliced(forward: Callable[[torch.Tensor], torch.Tensor], width: int, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., width]."""
        if x.device.type != "cpu" and not everywhere:
            return forward(x)
        flat = x.reshape(-1, x.shape[-1])
        result = x.new_empty(len(flat), width)
        for start in range(0, len(flat), SLICE):
            part = flat[start : start + SLICE]
            filling = filled_up(len(part)) - len(part)
            result[start : start + SLICE] = forward(torch.nn.functional.pad(part, (0, 0, 0, filling)))[: len(part)]
        return result.view(*x.shape[:-1], width)

    for layer in model.model.layers:
        product = layer.self_attn.kv_b_proj
        product.forward = functools.partial(sliced, product.forward, product.out_features)


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
