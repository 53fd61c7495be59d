"""The parts of a layout: sizes, the loaded model's parameters, and the files' tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The mixture of experts that replaces the MLP after the first `dense_layers`."""

    count: int
    per_token: int
    intermediate: int
    shared: int
    """Experts that every token passes through, in one MLP of `shared · intermediate`."""
    dense_layers: int


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (arXiv 2405.04434): the ranks of the compressed states, and the sizes of a head."""

    query_rank: int | None
    """None if queries are not compressed."""
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a GLM; counts of elements, and tokens for `context`."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    """Of queries and keys."""
    intermediate: int
    """Of the dense MLP."""
    vocab: int
    context: int
    attention_bias: bool
    tied: bool
    experts: Experts | None = None
    latent: Latent | None = None
    qk_norm: bool = False
    draft_layers: int = 0
    """Layers for multi-token prediction in the files after the last one; they are not loaded."""

    @property
    def cache_sizes(self) -> tuple[int, int, int]:
        """Heads, and elements a head of the cached key and value of a token and layer.

        With latent attention transformers caches the compressed latent as the key and the rotary part, which all
        heads share, as the value (transformers 5.23, `Glm4MoeLiteAttention.forward`).
        """
        if self.latent:
            return 1, self.latent.kv_rank, self.latent.rope_dim
        return self.kv_heads, self.head_dim, self.head_dim


@dataclass(frozen=True)
class Parameter:
    """One tensor of the loaded model; `linear` marks the weights that bitsandbytes quantises."""

    name: str
    shape: tuple[int, ...]
    linear: bool = False
    full_precision: bool = False
    """Kept in fp32 whatever the compute dtype is (transformers' `_keep_in_fp32_modules_strict`)."""
    projections: tuple[str, ...] = ()
    """For fused experts [experts, rows, columns]: each expert's weights in the files, in the order of its rows."""

    @property
    def elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Rows if all dimensions but the last are flattened; a vector's elements."""
        return math.prod(self.shape[:-1]) if len(self.shape) > 1 else self.shape[0]


@dataclass(frozen=True)
class Part:
    """The rows of a parameter, from `first_row`, that one stored tensor holds."""

    parameter: Parameter
    first_row: int
    rows: int

    @property
    def elements(self) -> int:
        """Numbers in these rows."""
        return self.parameter.elements // self.parameter.rows * self.rows


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint's files: the rows of its `parts`, one part after the other."""

    name: str
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The rows of all parts together; the other dimensions are the same."""
        parameter = self.parts[0].parameter
        columns = parameter.shape[-1:] if len(parameter.shape) > 1 else ()
        return (sum(part.rows for part in self.parts), *columns)

    @property
    def elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)
