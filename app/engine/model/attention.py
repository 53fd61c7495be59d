"""Attention over the slots' cache: one sequence's chunk, or one token of each of several sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from app.engine.model.windows import BatchWindow, ChunkWindow, GraphWindow, Window, Windows

ATTENTION_IMPLEMENTATION = "berth"
"""The name of `attend` among transformers' own. For a name that it does not know, transformers makes no mask."""


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    scaling: float,
    windows: Windows,
    **_kwargs: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [rows, heads, new, dim] to [rows, new, heads, dim].

    Keys and values are what `SlotLayer.update` returned; latent attention (MLA) has expanded them.
    """
    return attend_window(query, key, value, scaling, windows[query.device]).transpose(1, 2), None


def attend_window(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: Window
) -> torch.Tensor:
    """Query [rows, heads, new, dim] to the same, with the keys and values that are visible to the window."""
    if isinstance(window, ChunkWindow):
        return _attend_chunk(query, key, value, scaling, window)
    if isinstance(window, GraphWindow):
        grouped = _group_heads(query, key.shape[1])
        out = scaled_dot_product_attention(grouped, key, value, attn_mask=window.bias, scale=scaling)
        return out.view(query.shape)
    return _attend_batch(query, key, value, scaling, window)


def _attend_chunk(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: ChunkWindow
) -> torch.Tensor:
    new, mask = query.shape[2], window.mask
    if new < window.rows:
        query = pad(query, (0, 0, 0, window.rows - new))
    causal = mask is None and window.rows > 1
    if _needs_repeat(query, key, mask):
        key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1) for tensor in (key, value))
    grouped = key.shape[1] != query.shape[1]
    out = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=grouped
    )
    return out[:, :, :new]


def _needs_repeat(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether grouped heads would leave only the kernel that stores all scores (heads x new x keys).

    The CPU's fused kernel takes grouped heads with a mask. CUDA's takes them without one, from compute capability 8.0
    on (huggingface/transformers#48633).
    """
    if query.device.type == "cpu" or key.shape[1] == query.shape[1]:
        return False
    return mask is not None or torch.cuda.get_device_capability(query.device) < (8, 0)


def _attend_batch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: BatchWindow
) -> torch.Tensor:
    rows, heads, _, _ = query.shape
    padding = rows - len(window.slots)
    grouped = _group_heads(query, key.shape[1])
    parts = [
        scaled_dot_product_attention(
            grouped[group.rows],
            key[group.slots, :, : group.width],
            value[group.slots, :, : group.width],
            attn_mask=group.mask,
            scale=scaling,
        )
        for group in window.groups
    ]
    if padding:
        parts.append(parts[0].new_zeros(padding, *parts[0].shape[1:]))
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.reshape(rows, heads, 1, value.shape[-1])


def _group_heads(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[rows, heads, 1, dim] to [rows, kv_heads, group, dim]: the query heads of one key head are treated as several
    queries, so that no key head has to be repeated."""
    rows, heads, _, dim = query.shape
    return query.reshape(rows, kv_heads, heads // kv_heads, dim)


def use_slots(model: Any) -> None:
    """Makes each forward pass of the model attend by its `windows`; without them it can no longer be called."""
    AttentionInterface.register(ATTENTION_IMPLEMENTATION, attend)
    model.config._attn_implementation = ATTENTION_IMPLEMENTATION
