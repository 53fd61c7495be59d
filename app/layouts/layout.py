"""How the checkpoints of one `model_type` differ from others, and from the native class's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.layouts.shape import Shape


@dataclass(frozen=True)
class Layout:
    """One `model_type`: the parts of a layer, and how its checkpoints are stored."""

    model_type: str
    layer_norms: tuple[str, ...]
    ignored_suffixes: tuple[str, ...] = ("rotary_emb.inv_freq",)
    ignored_prefixes: tuple[str, ...] = ()
    native_type: str = ""
    """The `model_type` of the native class, if it is another."""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Native fields of config.json with other names in this layout."""
    names: tuple[tuple[str, str], ...] = ()
    """Native parts of tensor names, and the stored parts."""
    tokenizer_model: bool = False
    """Whether the tokenizer is a tokenizer.model: SentencePiece's (ChatGLM3) or a list of ranks (GLM-4-9B-chat)."""
    head_dim: int | None = None
    """The native class's default if config.json has none; None is hidden_size / num_attention_heads."""
    attention_bias: bool = False
    """The native class's default if config.json has none."""
    moe: bool = False
    """Whether config.json describes experts; then gate and up of every MLP are separate weights."""
    latent: bool = False
    """Whether attention is latent."""

    @property
    def native(self) -> str:
        """The `model_type` that transformers knows the class by."""
        return self.native_type or self.model_type

    def ignores(self, name: str, shape: Shape) -> bool:
        """Whether a stored tensor is not loaded."""
        if name.endswith(self.ignored_suffixes) or name.startswith(self.ignored_prefixes):
            return True
        if shape.tied and name == self.stored_name("lm_head.weight"):
            return True
        drafts = (f"model.layers.{index}." for index in range(shape.layers, shape.layers + shape.draft_layers))
        return name.startswith(tuple(drafts))

    def stored_name(self, name: str) -> str:
        """The name of the stored tensor that holds a native parameter."""
        for native, stored in self.names:
            name = name.replace(native, stored)
        return name
