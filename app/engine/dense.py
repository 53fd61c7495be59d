"""The forward pass of dense GLM layers over the slots' cache, on the CPU.

It computes what transformers' classes compute with the same modules' weights (tests hold both against each other),
in a third of the kernels: at one token a step those, and the Python around them, cost as much as a fifth of all
products; at a prompt the many passes over its activations cost as much as a third. And it takes answers' next tokens
and parts of several prompts in one pass: the weights are read once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.engine.attention import attend_window, batch_window, chunk_window
from app.engine.cache import Batch, SlotCache, SlotLayer, Window
from app.engine.passes import Piece, Step
from app.engine.rows import filled_up, filled_up_batch

KINDS = ("glm", "glm4")
"""Native model types whose layers these are; glm4 normalises what attention and MLP add, too."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Norm:
    """Root mean square normalisation, arXiv 1910.07467, computed in fp32."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, hidden] to the same."""
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        normal: torch.Tensor = wide * scale.add_(self.epsilon).rsqrt_()
        return normal.to(x.dtype).mul_(self.weight)


class DensePasses:
    """Of a loaded model that lies on the CPU as a whole."""

    together = True

    def __init__(self, model: Any, cache: SlotCache) -> None:
        self._model = model.model
        self._cache = cache
        self._norm = _norm(model.model.norm)
        self._layers = [_Layer(layer, held) for layer, held in zip(model.model.layers, cache.slot_layers, strict=True)]

    @staticmethod
    def fit(model: Any) -> bool:
        """Whether the model is of such layers and all of it lies on the CPU."""
        return model.config.model_type in KINDS and {weight.device for weight in model.parameters()} == {CPU}

    @torch.inference_mode()
    def __call__(self, step: Step | None, pieces: Sequence[Piece]) -> torch.Tensor:
        """See `Passes`."""
        ids, positions, windows, kept = _arranged(step, pieces)
        for window in windows:
            self._cache.check(window)
        x = self._model.embed_tokens(torch.tensor(ids))
        cos, sin = self._model.rotary_emb(x.new_empty(0, dtype=torch.float32), torch.tensor([positions]))
        half = cos.shape[-1] // 2
        turn = torch.complex(cos[0, :, None, :half], sin[0, :, None, :half])
        for layer in self._layers[:-1]:
            x = layer(x, turn, windows)
        return self._norm(self._layers[-1].last(x, turn, windows, kept))


def _arranged(
    step: Step | None, pieces: Sequence[Piece]
) -> tuple[list[int], list[int], list[Window], list[tuple[int, Window]]]:
    """Ids and positions of all tokens, filled up; the windows, whose tokens follow each other; and what is kept of
    the last layer: windows again, of a piece its last token's or none, and at which token each begins."""
    ids: list[int] = []
    positions: list[int] = []
    windows: list[Window] = []
    kept: list[tuple[int, Window]] = []
    if step is not None:
        ids, positions = list(step.ids), list(step.positions)
        batch = batch_window(step.slots, step.positions, CPU)
        windows.append(batch)
        kept.append((0, batch))
    for piece in pieces:
        window = chunk_window(piece.slot, piece.start, piece.end, CPU, filled_up(len(piece.ids)))
        ids += piece.ids
        positions += range(piece.start, piece.end)
        windows.append(window)
        if piece.ends:
            kept.append((len(ids) - 1, window.last))
    filling = (filled_up(len(ids)) if pieces else filled_up_batch(len(ids))) - len(ids)
    return ids + [0] * filling, positions + [0] * filling, windows, kept


class _Layer:
    def __init__(self, layer: Any, held: SlotLayer) -> None:
        self._attention, self._mlp, self._held = layer.self_attn, layer.mlp, held
        self._project = _projection(layer.self_attn)
        self._before, self._between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._behind_attention, self._behind_mlp = (
            _norm(getattr(layer, name)) if hasattr(layer, name) else None
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
        if not rows:
            return x[:0]
        own = _starts([window for _, window in kept])
        return self._behind(x[rows], self._attend(query[rows], own))

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
            parts.append(out[:, :, 0] if isinstance(window, Batch) else out[0].transpose(0, 1))
        if filling := len(query) - sum(len(part) for part in parts):
            parts.append(query.new_zeros(filling, *query.shape[1:]))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1)

    def _behind(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        added = self._attention.o_proj(seen)
        x = x + (self._behind_attention(added) if self._behind_attention else added)
        gate, up = self._mlp.gate_up_proj(self._between(x)).chunk(2, dim=-1)
        added = self._mlp.down_proj(self._mlp.activation_fn(gate).mul_(up))
        return x + (self._behind_mlp(added) if self._behind_mlp else added)


def _norm(module: Any) -> Norm:
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
    return states[:, :, None] if isinstance(window, Batch) else states.transpose(0, 1)[None]


def _rotate(states: torch.Tensor, turn: torch.Tensor) -> None:
    """Turns the pairs that each head's elements begin with, in place; states are [tokens, heads, elements]."""
    pairs = states[..., : 2 * turn.shape[-1]]
    turned = torch.view_as_complex(pairs.float().view(*pairs.shape[:-1], -1, 2)) * turn
    pairs.copy_(torch.view_as_real(turned).flatten(-2))
