"""Every tensor of the loaded model, with the names and shapes of transformers' native classes, and of the files."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from app.layouts.layout import Layout
from app.layouts.shape import Experts, Latent, Parameter, Part, Shape, StoredTensor


@functools.lru_cache(maxsize=8)
def skeleton(layout: Layout, shape: Shape) -> tuple[Parameter, ...]:
    """Every parameter of the loaded model, and every buffer that is stored, in the order of a forward pass."""
    return tuple(_skeleton(layout, shape))


def stored_tensors(layout: Layout, shape: Shape) -> tuple[StoredTensor, ...]:
    """Every tensor that a checkpoint's files must hold."""
    groups: dict[str, list[Part]] = {}
    for parameter in skeleton(layout, shape):
        for name, part in _parts(layout, parameter):
            groups.setdefault(name, []).append(part)
    return tuple(StoredTensor(name, tuple(parts)) for name, parts in groups.items())


def cache_bytes_per_token(shape: Shape, element_bytes: int) -> int:
    """Bytes of one token in the caches of all layers (`Shape.cache_sizes`).

    Grouped heads: 2 · layers · kv_heads · head_dim · bytes an element; latent attention:
    layers · (kv_lora_rank + qk_rope_head_dim) · bytes an element.
    """
    heads, key_dim, value_dim = shape.cache_sizes
    return shape.layers * heads * (key_dim + value_dim) * element_bytes


def _parts(layout: Layout, parameter: Parameter) -> Iterator[tuple[str, Part]]:
    if not parameter.projections:
        yield layout.stored_name(parameter.name), Part(parameter, 0, parameter.rows)
        return
    experts, rows_each, _ = parameter.shape
    rows = rows_each // len(parameter.projections)
    prefix = parameter.name.rpartition(".")[0]
    for expert in range(experts):
        for index, projection in enumerate(parameter.projections):
            part = Part(parameter, expert * rows_each + index * rows, rows)
            yield f"{prefix}.{expert}.{projection}.weight", part


def _skeleton(layout: Layout, shape: Shape) -> Iterator[Parameter]:
    yield Parameter("model.embed_tokens.weight", (shape.vocab, shape.hidden))
    for index in range(shape.layers):
        yield from _layer(layout, shape, index)
    yield Parameter("model.norm.weight", (shape.hidden,))
    if not shape.tied:
        yield Parameter("lm_head.weight", (shape.vocab, shape.hidden))


def _layer(layout: Layout, shape: Shape, index: int) -> Iterator[Parameter]:
    prefix = f"model.layers.{index}."
    yield from _latent(shape, shape.latent, prefix) if shape.latent else _attention(shape, prefix)
    if shape.experts and index >= shape.experts.dense_layers:
        yield from _experts(shape, shape.experts, f"{prefix}mlp.")
    elif layout.moe:
        yield from _mlp(f"{prefix}mlp.", shape.hidden, shape.intermediate)
    else:
        yield Parameter(f"{prefix}mlp.gate_up_proj.weight", (2 * shape.intermediate, shape.hidden), linear=True)
        yield Parameter(f"{prefix}mlp.down_proj.weight", (shape.hidden, shape.intermediate), linear=True)
    for name in layout.layer_norms:
        yield Parameter(f"{prefix}{name}.weight", (shape.hidden,))


def _linear(name: str, rows: int, columns: int, bias: bool = False) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (rows, columns), linear=True)
    if bias:
        yield Parameter(f"{name}.bias", (rows,))


def _attention(shape: Shape, prefix: str) -> Iterator[Parameter]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield from _linear(f"{prefix}self_attn.{name}", rows, shape.hidden, shape.attention_bias)
    if shape.qk_norm:
        yield Parameter(f"{prefix}self_attn.q_norm.weight", (shape.head_dim,))
        yield Parameter(f"{prefix}self_attn.k_norm.weight", (shape.head_dim,))
    yield from _linear(f"{prefix}self_attn.o_proj", shape.hidden, queries)


def _latent(shape: Shape, latent: Latent, prefix: str) -> Iterator[Parameter]:
    queries, bias, name = shape.heads * shape.head_dim, shape.attention_bias, f"{prefix}self_attn."
    if latent.query_rank is None:
        yield from _linear(f"{name}q_proj", queries, shape.hidden)
    else:
        yield from _linear(f"{name}q_a_proj", latent.query_rank, shape.hidden, bias)
        yield Parameter(f"{name}q_a_layernorm.weight", (latent.query_rank,))
        yield from _linear(f"{name}q_b_proj", queries, latent.query_rank)
    yield from _linear(f"{name}kv_a_proj_with_mqa", latent.kv_rank + latent.rope_dim, shape.hidden, bias)
    yield Parameter(f"{name}kv_a_layernorm.weight", (latent.kv_rank,))
    yield from _linear(f"{name}kv_b_proj", shape.heads * (latent.nope_dim + latent.value_dim), latent.kv_rank)
    yield from _linear(f"{name}o_proj", shape.hidden, shape.heads * latent.value_dim, bias)


def _mlp(prefix: str, hidden: int, intermediate: int) -> Iterator[Parameter]:
    yield from _linear(f"{prefix}gate_proj", intermediate, hidden)
    yield from _linear(f"{prefix}up_proj", intermediate, hidden)
    yield from _linear(f"{prefix}down_proj", hidden, intermediate)


def _experts(shape: Shape, experts: Experts, prefix: str) -> Iterator[Parameter]:
    """Router and experts are not nn.Linear in transformers 5, so that bitsandbytes skips them silently."""
    count, hidden, intermediate = experts.count, shape.hidden, experts.intermediate
    yield Parameter(f"{prefix}gate.weight", (count, hidden))
    yield Parameter(f"{prefix}gate.e_score_correction_bias", (count,), full_precision=True)
    fused = f"{prefix}experts."
    yield Parameter(f"{fused}gate_up_proj", (count, 2 * intermediate, hidden), projections=("gate_proj", "up_proj"))
    yield Parameter(f"{fused}down_proj", (count, hidden, intermediate), projections=("down_proj",))
    yield from _mlp(f"{prefix}shared_experts.", hidden, experts.shared * intermediate)
