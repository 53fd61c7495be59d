"""A dense GLM layer: transformers' modules and weights, in fewer kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.engine.kernels.packed_linear import PackedLinear
from app.engine.kernels.row_padding import filled_up_batch
from app.engine.model.attention import attend_window
from app.engine.model.kv_cache import SlotLayer
from app.engine.model.windows import Chunk, Window

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Norm:
    """Root mean square normalisation, arXiv 1910.07467, computed in fp32."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, hidden] to the same."""
        if x.device != CPU:  # one kernel there, and on the CPU more of them than here
            return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        normal: torch.Tensor = wide * scale.add_(self.epsilon).rsqrt_()
        return normal.to(x.dtype).mul_(self.weight)


class DenseLayer:
    """One of transformers' layers, and what it holds of the cache."""

    def __init__(self, layer: Any, held: SlotLayer) -> None:
        self._attention, self._mlp, self._held = layer.self_attn, layer.mlp, held
        self._project = _projection(layer.self_attn)
        self._before, self._between = norm_of(layer.input_layernorm), norm_of(layer.post_attention_layernorm)
        self._behind_attention, self._behind_mlp = (
            norm_of(getattr(layer, name)) if hasattr(layer, name) else None
            for name in ("post_self_attn_layernorm", "post_mlp_layernorm")
        )

    def __call__(self, x: torch.Tensor, turn: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        """[tokens, hidden] to the same; `turn` is [tokens, 1, pairs]."""
        query = self._query(x, turn, windows)
        return self._behind(x, self._attend(query, _starts(windows)))

    def last(
        self, x: torch.Tensor, turn: torch.Tensor, windows: Sequence[Window], kept: Sequence[tuple[int, Window]]
    ) -> torch.Tensor:
        """The same of the kept tokens alone, [kept, hidden]: of the others but keys and values are needed."""
        query = self._query(x, turn, windows)
        rows = [start + row for start, window in kept for row in range(window.tokens)]
        if not (count := len(rows)):
            return x[:0]
        if x.device == CPU:
            rows += [0] * (filled_up_batch(count) - count)
        own = _starts([window for _, window in kept])
        return self._behind(x[rows], self._attend(query[rows], own))[:count]

    def multiply(self, rows: int) -> None:
        """All its products of so many rows, for nothing, where they are of plain or packed 16-bit weights."""
        product = self._attention.o_proj
        weight = self._before.weight
        if type(product) in (torch.nn.Linear, PackedLinear) and weight.dtype == torch.bfloat16:
            x = weight.new_zeros(rows, *weight.shape)
            self._project(x)
            self._behind(x, weight.new_zeros(rows, product.in_features))

    def _query(self, x: torch.Tensor, turn: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        """Writes keys and values; returns the queries, [tokens, heads, elements]."""
        own = self._attention
        states = self._project(self._before(x)).view(x.shape[0], -1, own.head_dim)
        groups = own.num_key_value_groups
        kv_heads = states.shape[1] // (groups + 2)
        query, key, value = torch.split(states, [groups * kv_heads, kv_heads, kv_heads], dim=1)
        _rotate(states[:, : (groups + 1) * kv_heads], turn)
        for start, window in _starts(windows):
            part = slice(start, start + window.tokens)
            self._held.write(window, _by_window(key[part], window), _by_window(value[part], window))
        return query

    def _attend(self, query: torch.Tensor, windows: Iterator[tuple[int, Window]]) -> torch.Tensor:
        """[tokens, heads, elements] to [tokens, heads * elements]; tokens that only fill up get zeros."""
        parts = []
        for start, window in windows:
            part = _by_window(query[start : start + window.tokens], window)
            out = attend_window(part, *self._held.seen(window), self._attention.scaling, window)
            parts.append(out[0].transpose(0, 1) if isinstance(window, Chunk) else out[:, :, 0])
        if filling := len(query) - sum(len(part) for part in parts):
            parts.append(query.new_zeros(filling, *query.shape[1:]))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1)

    def _behind(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        added = self._attention.o_proj(seen)
        x = x + (self._behind_attention(added) if self._behind_attention else added)
        gate, up = self._mlp.gate_up_proj(self._between(x)).chunk(2, dim=-1)
        added = self._mlp.down_proj(self._mlp.activation_fn(gate).mul_(up))
        return x + (self._behind_mlp(added) if self._behind_mlp else added)


def norm_of(module: Any) -> Norm:
    """That of a module of transformers'."""
    return Norm(module.weight, module.variance_epsilon)


def join_projections(model: Any) -> None:
    """Makes one product of a layer's three for queries, keys and values; transformers' class can't run it then.

    Two of them are so small that calling them takes as long as computing them. Quantised ones stay as they are.
    """
    for layer in model.model.layers:
        own = layer.self_attn
        parts = [getattr(own, name) for name in PROJECTIONS]
        if all(type(part) is torch.nn.Linear for part in parts):
            outputs, biased = sum(part.out_features for part in parts), parts[0].bias is not None
            joined = torch.nn.Linear(parts[0].in_features, outputs, biased, device="meta")
            joined.weight = _stacked([part.weight for part in parts])
            if biased:
                joined.bias = _stacked([part.bias for part in parts])
            own.qkv_proj = joined
            for name in PROJECTIONS:
                delattr(own, name)


def _stacked(parts: Sequence[torch.Tensor]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.cat([part.data for part in parts]), requires_grad=False)


def _projection(attention: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """[tokens, hidden] to queries, keys and values side by side."""
    if hasattr(attention, "qkv_proj"):
        joined: Callable[[torch.Tensor], torch.Tensor] = attention.qkv_proj
        return joined
    parts = [getattr(attention, name) for name in PROJECTIONS]
    return lambda x: torch.cat([part(x) for part in parts], dim=-1)


def _starts(windows: Sequence[Window]) -> Iterator[tuple[int, Window]]:
    """Each with the number of tokens before it."""
    start = 0
    for window in windows:
        yield start, window
        start += window.tokens


def _by_window(states: torch.Tensor, window: Window) -> torch.Tensor:
    """[tokens, heads, elements] to [rows, heads, new, elements]: a batch's tokens are rows, a chunk's are one row's."""
    return states.transpose(0, 1)[None] if isinstance(window, Chunk) else states[:, :, None]


def _rotate(states: torch.Tensor, turn: torch.Tensor) -> None:
    """Turns the pairs that each head's elements begin with, in place; states are [tokens, heads, elements]."""
    pairs = states[..., : 2 * turn.shape[-1]]
    turned = torch.view_as_complex(pairs.float().view(*pairs.shape[:-1], -1, 2)) * turn
    pairs.copy_(torch.view_as_real(turned).flatten(-2))
