"""The forward pass of dense GLM layers over the slots' cache, on the CPU.

It computes what transformers' classes compute with the same modules' weights (tests hold both against each other),
in a third of the kernels: at one token a step those, and the Python around them, cost as much as a fifth of all
products; at a prompt the many passes over its activations cost as much as a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from app.engine.attention import attend
from app.engine.cache import Chunk, SlotCache, SlotLayer, Windows

KINDS = ("glm", "glm4")
"""Native model types whose layers these are; glm4 normalises what attention and MLP add, too."""
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


class Dense:
    """Of a loaded model that lies on the CPU as a whole."""

    def __init__(self, model: Any, cache: SlotCache) -> None:
        self._model = model.model
        self._norm = _norm(model.model.norm)
        self._layers = [_Layer(layer, held) for layer, held in zip(model.model.layers, cache.slot_layers, strict=True)]

    @staticmethod
    def fits(model: Any, cache: SlotCache) -> bool:
        """Whether the model is of such layers and all of it lies on the CPU."""
        devices = {*cache.devices, model.model.embed_tokens.weight.device, model.model.norm.weight.device}
        return model.config.model_type in KINDS and devices == {CPU}

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, windows: Windows, only: int | None = None
    ) -> torch.Tensor:
        """Hidden states [rows, new, hidden] of ids [rows, new]; the cache is aimed by the same windows.

        Of a chunk, `only` that token's, [1, 1, hidden]: the last layer then computes but keys and values of the others.
        """
        x = self._model.embed_tokens(ids)
        cos, sin = self._model.rotary_emb(x.new_empty(0, dtype=torch.float32), positions)
        half = cos.shape[-1] // 2
        turn = torch.complex(cos[..., :half], sin[..., :half])[:, :, None]
        flat = x.flatten(0, 1)
        for layer in self._layers[:-1]:
            flat = layer(flat, turn, windows)
        flat = self._layers[-1](flat, turn, windows, only)
        return self._norm(flat).view(x.shape if only is None else (1, 1, -1))


class _Layer:
    def __init__(self, layer: Any, held: SlotLayer) -> None:
        self._attention, self._mlp, self._held = layer.self_attn, layer.mlp, held
        self._before, self._between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._behind_attention, self._behind_mlp = (
            _norm(getattr(layer, name)) if hasattr(layer, name) else None
            for name in ("post_self_attn_layernorm", "post_mlp_layernorm")
        )

    def __call__(self, x: torch.Tensor, turn: torch.Tensor, windows: Windows, only: int | None = None) -> torch.Tensor:
        """[tokens, hidden] to the same, or to the `only` one's; `turn` is [rows, new, 1, pairs]."""
        added = self._attend(self._before(x), turn, windows, only)
        x = x if only is None else x[only : only + 1]
        x = x + (self._behind_attention(added) if self._behind_attention else added)
        gate, up = self._mlp.gate_up_proj(self._between(x)).chunk(2, dim=-1)
        added = self._mlp.down_proj(self._mlp.activation_fn(gate).mul_(up))
        return x + (self._behind_mlp(added) if self._behind_mlp else added)

    def _attend(self, x: torch.Tensor, turn: torch.Tensor, windows: Windows, only: int | None) -> torch.Tensor:
        own = self._attention
        heads = (*turn.shape[:2], -1, own.head_dim)
        key, value = _rotate(own.k_proj(x).view(heads), turn), own.v_proj(x).view(heads)
        keys, values = self._held.update(key.transpose(1, 2), value.transpose(1, 2))
        window = self._held.window
        if only is not None and isinstance(window, Chunk):
            end = window.start + only + 1
            keys, values, windows = keys[:, :, :end], values[:, :, :end], {CPU: Chunk(window.slot, end - 1, end)}
            x, turn, heads = x[only : only + 1], turn[:, only : only + 1], (1, 1, -1, own.head_dim)
        query = _rotate(own.q_proj(x).view(heads), turn)
        seen, _ = attend(own, query.transpose(1, 2), keys, values, None, scaling=own.scaling, windows=windows)
        result: torch.Tensor = own.o_proj(seen.reshape(x.shape[0], -1))
        return result


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _rotate(states: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turns the pairs that each head's elements begin with, in place: [rows, new, heads, elements] to the same."""
    pairs = states[..., : 2 * turn.shape[-1]]
    turned = torch.view_as_complex(pairs.float().view(*pairs.shape[:-1], -1, 2)) * turn
    pairs.copy_(torch.view_as_real(turned).flatten(-2))
    return states
