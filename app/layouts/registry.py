"""Facts about checkpoint layouts as data, stated once: the plan counts from them and the loader loads by them.

Names and shapes are those of transformers' native classes (`GlmForCausalLM`, `Glm4ForCausalLM`, `Glm4MoeForCausalLM`,
`Glm4MoeLiteForCausalLM`). Most published checkpoints use the same names; for the others the layout has the stored
names.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.layouts import chatglm
from app.layouts.config_fields import LayoutError, count, flag, positive
from app.layouts.layout import Layout
from app.layouts.moe import draft_layers_of, experts_of, latent_of
from app.layouts.rotary import check_rotary
from app.layouts.shape import Shape

LOAD_PIECE_ELEMENTS = 1 << 21
"""Elements that the loader converts at a time; nothing else is allocated for the time of loading alone."""

HEAP_GAP_BYTES = 20 << 20
"""Free memory that the engine's heap may keep beyond the memory of one step: freed activations leave gaps of other
sizes. 19 MiB in fp32 with 16 slots (tests/bench/plan_accuracy); more than that is returned to the system (`HeapBound`).
"""

_PRE_NORMS = ("input_layernorm", "post_attention_layernorm")

LAYOUTS: Mapping[str, Layout] = {
    layout.model_type: layout
    for layout in (
        Layout("glm", _PRE_NORMS, head_dim=128, attention_bias=True),
        Layout(
            "glm4",
            (*_PRE_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
            head_dim=128,
            attention_bias=True,
        ),
        Layout("glm4_moe", _PRE_NORMS, moe=True),
        Layout("glm4_moe_lite", _PRE_NORMS, moe=True, latent=True),
        Layout(
            "chatglm",
            _PRE_NORMS,
            chatglm.IGNORED_SUFFIXES,
            chatglm.IGNORED_PREFIXES,
            native_type="glm",
            fields=chatglm.FIELDS,
            names=chatglm.TENSOR_NAMES,
            tokenizer_model=True,
        ),
    )
}


def layout_of(config: Mapping[str, object]) -> Layout:
    """The layout that a parsed config.json names. Raises LayoutError."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in LAYOUTS:
        raise LayoutError(f"model_type is {model_type!r}; supported: {', '.join(sorted(LAYOUTS))}")
    if model_type == "chatglm":
        if reason := chatglm.unsupported(config):
            raise LayoutError(reason)
    else:
        _check_native(config)
    return LAYOUTS[model_type]


def _check_native(config: Mapping[str, object]) -> None:
    """Raises LayoutError for values that the native classes would compute differently, or not at all."""
    if (activation := config.get("hidden_act")) not in (None, "silu"):
        raise LayoutError(f"hidden_act is {activation!r}; every published GLM has 'silu', and only that is supported")
    positive(config, "rms_norm_eps", 1e-5)
    check_rotary(config)


def shape_of(config: Mapping[str, object]) -> Shape:
    """The sizes in a parsed config.json. Raises LayoutError that names the field."""
    layout = layout_of(config)
    names = layout.fields

    def size(native: str, default: int | None = None) -> int:
        return count(config, names.get(native, native), default)

    heads, hidden, layers = size("num_attention_heads"), size("hidden_size"), size("num_hidden_layers")
    latent = latent_of(config, heads) if layout.latent else None
    if latent:
        kv_heads, head_dim = heads, latent.nope_dim + latent.rope_dim
    else:
        kv_heads = size("num_key_value_heads")
        head_dim = size("head_dim", layout.head_dim or hidden // heads)
    if heads % kv_heads:
        raise LayoutError(
            f"num_attention_heads {heads} is not a multiple of "
            f"{names.get('num_key_value_heads', 'num_key_value_heads')} {kv_heads}"
        )
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=size("intermediate_size"),
        vocab=size("vocab_size"),
        context=size("max_position_embeddings"),
        attention_bias=flag(config, names.get("attention_bias", "attention_bias"), layout.attention_bias),
        tied=flag(config, "tie_word_embeddings"),
        experts=experts_of(config, layers, layout.latent) if layout.moe else None,
        latent=latent,
        qk_norm=layout.moe and not layout.latent and flag(config, "use_qk_norm"),
        draft_layers=draft_layers_of(config) if layout.moe else 0,
    )


def native_config(config: Mapping[str, object]) -> dict[str, object] | None:
    """The native config's fields; None if config.json itself is a native config. Raises LayoutError."""
    if not (layout := layout_of(config)).fields:
        return None
    shape = shape_of(config)
    sizes: dict[str, object] = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "attention_bias": shape.attention_bias,
        "tie_word_embeddings": shape.tied,
    }
    assert layout.model_type == "chatglm"
    return {**sizes, **chatglm.native_extras(config)}
