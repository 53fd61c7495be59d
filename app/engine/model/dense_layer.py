"""A dense GLM layer: transformers' modules and weights, computed with fewer kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.contract.plan import CPU
from app.engine.kernels import int4_linear, int8_linear
from app.engine.kernels.bf16_linear import Bf16Linear
from app.engine.kernels.int4_linear import Int4Linear
from app.engine.kernels.int8_linear import Int8Linear
from app.engine.kernels.packed_linear import PackedLinear, can_pack
from app.engine.kernels.row_padding import padded_batch
from app.engine.model.attention import attend_window
from app.engine.model.kv_cache import SlotLayer
from app.engine.model.windows import ChunkWindow, Window

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class RmsNorm:
    """Root mean square normalisation, arXiv 1910.07467, computed in fp32."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, hidden] to the same."""
        if x.device.type != CPU:  # one kernel there; on the CPU it is more kernels than this
            return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        normal: torch.Tensor = wide * scale.add_(self.epsilon).rsqrt_()
        return normal.to(x.dtype).mul_(self.weight)


class DenseLayer:
    """One of transformers' layers with its layer of the cache."""

    def __init__(self, layer: Any, cache_layer: SlotLayer) -> None:
        self._attention, self._mlp, self._cache = layer.self_attn, layer.mlp, cache_layer
        self._project = _projection(layer.self_attn)
        self._input_norm, self._mlp_norm = norm_of(layer.input_layernorm), norm_of(layer.post_attention_layernorm)
        self._attention_output_norm, self._mlp_output_norm = (
            norm_of(getattr(layer, name)) if hasattr(layer, name) else None
            for name in ("post_self_attn_layernorm", "post_mlp_layernorm")
        )

    def __call__(self, x: torch.Tensor, rotary: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        """[tokens, hidden] to the same; `rotary` is [tokens, 1, pairs]."""
        query = self._query(x, rotary, windows)
        return self._finish_layer(x, self._attend(query, _with_starts(windows)))

    def last(
        self, x: torch.Tensor, rotary: torch.Tensor, windows: Sequence[Window], kept: Sequence[tuple[int, Window]]
    ) -> torch.Tensor:
        """The same for the kept tokens alone, [kept, hidden]: the others' outputs are not needed after this layer."""
        query = self._query(x, rotary, windows)
        rows = [start + row for start, window in kept for row in range(window.tokens)]
        if not (count := len(rows)):
            return x[:0]
        if x.device.type == CPU:
            rows += [0] * (padded_batch(count) - count)
        attention = self._attend(query[rows], _with_starts([window for _, window in kept]))
        return self._finish_layer(x[rows], attention)[:count]

    def keeps_code(self, rows: int) -> bool:
        """Whether oneDNN keeps compiled code of its products for this number of rows: only of bf16."""
        if self._input_norm.weight.dtype != torch.bfloat16:
            return False
        if isinstance(self._attention.o_proj, Bf16Linear):
            return self._attention.o_proj.keeps_code(rows)
        return type(self._attention.o_proj) in (torch.nn.Linear, PackedLinear) and can_pack()

    @torch.inference_mode()
    def warm_up(self, rows: int) -> None:
        """Computes all its products with so many rows of zeros."""
        weight = self._input_norm.weight
        x = weight.new_zeros(rows, *weight.shape)
        self._project(x)
        self._finish_layer(x, weight.new_zeros(rows, self._attention.o_proj.in_features))

    def _query(self, x: torch.Tensor, rotary: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        """Writes keys and values to the cache; returns the queries, [tokens, heads, elements]."""
        attention = self._attention
        states = self._project(self._input_norm(x)).view(x.shape[0], -1, attention.head_dim)
        groups = attention.num_key_value_groups
        kv_heads = states.shape[1] // (groups + 2)
        query, key, value = torch.split(states, [groups * kv_heads, kv_heads, kv_heads], dim=1)
        _rotate(states[:, : (groups + 1) * kv_heads], rotary)
        for start, window in _with_starts(windows):
            part = slice(start, start + window.tokens)
            self._cache.write(window, _by_window(key[part], window), _by_window(value[part], window))
        return query

    def _attend(self, query: torch.Tensor, windows: Iterator[tuple[int, Window]]) -> torch.Tensor:
        """[tokens, heads, elements] to [tokens, heads * elements]; padding tokens get zeros."""
        parts = []
        for start, window in windows:
            part = _by_window(query[start : start + window.tokens], window)
            out = attend_window(part, *self._cache.visible_kv(window), self._attention.scaling, window)
            parts.append(out[0].transpose(0, 1) if isinstance(window, ChunkWindow) else out[:, :, 0])
        if padding := len(query) - sum(len(part) for part in parts):
            parts.append(query.new_zeros(padding, *query.shape[1:]))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1)

    def _finish_layer(self, x: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Adds the attention's output and the MLP's to `x`, [tokens, hidden]."""
        added = self._attention.o_proj(attention)
        x = x + (self._attention_output_norm(added) if self._attention_output_norm else added)
        gate, up = self._mlp.gate_up_proj(self._mlp_norm(x)).chunk(2, dim=-1)
        added = self._mlp.down_proj(self._mlp.activation_fn(gate).mul_(up))
        return x + (self._mlp_output_norm(added) if self._mlp_output_norm else added)


def norm_of(module: Any) -> RmsNorm:
    """The norm with the weight of one of transformers' modules."""
    return RmsNorm(module.weight, module.variance_epsilon)


def join_projections(model: Any) -> None:
    """Joins each layer's three products for queries, keys and values; transformers' class can't run it any more.

    Two of them are so small that calling them takes as long as computing them. bitsandbytes' stay as they are.
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        joined = _join([getattr(attention, name) for name in PROJECTIONS])
        if joined is not None:
            attention.qkv_proj = joined
            for name in PROJECTIONS:
                delattr(attention, name)


def _join(parts: Sequence[Any]) -> torch.nn.Module | None:
    kinds = {type(part) for part in parts}
    if kinds == {Int8Linear}:
        return int8_linear.joined(parts)
    if kinds == {Int4Linear}:
        return int4_linear.joined(parts)
    if kinds not in ({torch.nn.Linear}, {Bf16Linear}):
        return None
    outputs, biased = sum(part.out_features for part in parts), parts[0].bias is not None
    joined: torch.nn.Linear = type(parts[0])(parts[0].in_features, outputs, biased, device="meta")
    joined.weight = _stack_rows([part.weight for part in parts])
    if biased:
        joined.bias = _stack_rows([part.bias for part in parts])
    return joined


def _stack_rows(parts: Sequence[torch.Tensor]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.cat([part.data for part in parts]), requires_grad=False)


def _projection(attention: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """[tokens, hidden] to queries, keys and values side by side."""
    if hasattr(attention, "qkv_proj"):
        joined: Callable[[torch.Tensor], torch.Tensor] = attention.qkv_proj
        return joined
    parts = [getattr(attention, name) for name in PROJECTIONS]
    return lambda x: torch.cat([part(x) for part in parts], dim=-1)


def _with_starts(windows: Sequence[Window]) -> Iterator[tuple[int, Window]]:
    """Each window with the index of its first token."""
    start = 0
    for window in windows:
        yield start, window
        start += window.tokens


def _by_window(states: torch.Tensor, window: Window) -> torch.Tensor:
    """[tokens, heads, elements] to [rows, heads, new, elements]: a chunk is one row of tokens, others a row a token."""
    return states.transpose(0, 1)[None] if isinstance(window, ChunkWindow) else states[:, :, None]


def _rotate(states: torch.Tensor, rotary: torch.Tensor) -> None:
    """Rotates the first pairs of each head's elements, in place; states are [tokens, heads, elements]."""
    pairs = states[..., : 2 * rotary.shape[-1]]
    rotated = torch.view_as_complex(pairs.float().view(*pairs.shape[:-1], -1, 2)) * rotary
    pairs.copy_(torch.view_as_real(rotated).flatten(-2))
