"""The fields of `glm4_moe` (GLM-4.5 to 4.7) and `glm4_moe_lite` (GLM-4.7-Flash) beyond the dense sizes.

Defaults are those of transformers 5.23's `Glm4MoeConfig` and `Glm4MoeLiteConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.layouts.config_fields import LayoutError, count, flag, positive
from app.layouts.shape import Experts, Latent

_FIXED = (
    ("scoring_func", "sigmoid"),
    ("topk_method", "noaux_tc"),
)
"""Fields of other mixtures of experts that the native classes don't read, and the value that these compute."""


def experts_of(config: Mapping[str, object], layers: int, latent: bool) -> Experts:
    """Sizes of the experts. Raises LayoutError, also for values that the router can't compute."""
    for field, needed in _FIXED:
        if (value := config.get(field)) not in (None, needed):
            raise LayoutError(f"{field} is {value!r}; the native class computes {needed!r}")
    total = count(config, "n_routed_experts")
    groups = count(config, "n_group", 1)
    if total % groups or total // groups < 2:
        raise LayoutError(
            f"n_group is {groups}, which can't split {total} experts (n_routed_experts) into groups of two or more"
        )
    chosen_groups = count(config, "topk_group", 1, most=groups)
    most = total // groups * chosen_groups
    positive(config, "routed_scaling_factor", 1.0)
    flag(config, "norm_topk_prob", True)
    return Experts(
        count=total,
        per_token=count(config, "num_experts_per_tok", most=most),
        intermediate=count(config, "moe_intermediate_size"),
        shared=count(config, "n_shared_experts", 1),
        dense_layers=_listed_dense_layers(config, layers) if latent else _dense_layers(config, layers),
    )


def latent_of(config: Mapping[str, object], heads: int) -> Latent:
    """Sizes of latent attention. Raises LayoutError."""
    latent = Latent(
        query_rank=None if config.get("q_lora_rank", 0) is None else count(config, "q_lora_rank"),
        kv_rank=count(config, "kv_lora_rank"),
        nope_dim=count(config, "qk_nope_head_dim"),
        rope_dim=count(config, "qk_rope_head_dim"),
        value_dim=count(config, "v_head_dim"),
    )
    if latent.rope_dim % 2:
        raise LayoutError(f"qk_rope_head_dim is {latent.rope_dim}; pairs are rotated, so an even number is needed")
    if (kv_heads := count(config, "num_key_value_heads", heads)) != heads:
        raise LayoutError(f"num_key_value_heads is {kv_heads}; latent attention needs as many as query heads, {heads}")
    for field, needed in (("head_dim", latent.rope_dim), ("partial_rotary_factor", 1.0)):
        if (value := config.get(field)) not in (None, needed):
            raise LayoutError(f"{field} is {value!r}; the native class computes glm4_moe_lite with {needed}")
    flag(config, "rope_interleave", True)
    return latent


def draft_layers_of(config: Mapping[str, object]) -> int:
    """Layers for multi-token prediction after the last one."""
    return count(config, "num_nextn_predict_layers", 1, least=0)


def _dense_layers(config: Mapping[str, object], layers: int) -> int:
    return count(config, "first_k_dense_replace", 1, least=0, most=layers)


def _listed_dense_layers(config: Mapping[str, object], layers: int) -> int:
    """`Glm4MoeLiteConfig` reads a list of kinds, by default one dense layer, and never `first_k_dense_replace`."""
    kinds = config.get("mlp_layer_types")
    if kinds is None:
        kinds = ["dense"] + ["sparse"] * (layers - 1)
    dense = kinds.count("dense") if isinstance(kinds, list) else 0
    if kinds != ["dense"] * dense + ["sparse"] * (layers - dense):
        raise LayoutError(
            f"mlp_layer_types is {str(kinds)[:80]}; for each of {layers} layers 'dense' or 'sparse' is needed, "
            "the dense ones first"
        )
    if (first := count(config, "first_k_dense_replace", dense, least=0)) != dense:
        raise LayoutError(f"first_k_dense_replace is {first}; the native class takes mlp_layer_types, {dense} dense")
    return dense
