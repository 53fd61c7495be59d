"""config.json of the `chatglm` layout (ChatGLM3-6B, GLM-4-9B-chat as first published), and which of its values the
native class can compute."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

TENSOR_NAMES: tuple[tuple[str, str], ...] = (
    ("model.embed_tokens.", "transformer.embedding.word_embeddings."),
    ("model.layers.", "transformer.encoder.layers."),
    ("model.norm.", "transformer.encoder.final_layernorm."),
    ("lm_head.", "transformer.output_layer."),
    ("self_attn.q_proj.", "self_attention.query_key_value."),
    ("self_attn.k_proj.", "self_attention.query_key_value."),
    ("self_attn.v_proj.", "self_attention.query_key_value."),
    ("self_attn.o_proj.", "self_attention.dense."),
    ("mlp.gate_up_proj.", "mlp.dense_h_to_4h."),
    ("mlp.down_proj.", "mlp.dense_4h_to_h."),
)
"""Native part of a name, stored part. Parameters with the same stored name are stored in one tensor, in this order."""

FIELDS: Mapping[str, str] = {
    "num_hidden_layers": "num_layers",
    "num_key_value_heads": "multi_query_group_num",
    "head_dim": "kv_channels",
    "intermediate_size": "ffn_hidden_size",
    "vocab_size": "padded_vocab_size",
    "max_position_embeddings": "seq_length",
    "attention_bias": "add_qkv_bias",
}
"""The native name of a field of config.json, and the name in this layout."""

IGNORED_SUFFIXES = ("rotary_pos_emb.inv_freq",)
IGNORED_PREFIXES = ("transformer.prefix_encoder.",)

SENTENCEPIECE_MARK = (0, 2)
"""Offsets of the tag 0x0a in a SentencePiece model: of its first piece, and of that piece's text."""


@dataclass(frozen=True)
class _Fixed:
    """A field that must have one value; `default` is the published code's if it is missing."""

    field: str
    default: object
    needed: object
    why: str


_FIXED = (
    _Fixed("rmsnorm", True, True, "the native class does not compute LayerNorm"),
    _Fixed("post_layer_norm", True, True, "the native class always has a final norm"),
    _Fixed("apply_residual_connection_post_layernorm", False, False, "the native class adds the input of the norm"),
    _Fixed("add_bias_linear", False, False, "the native class has no biases there"),
    _Fixed("multi_query_attention", False, True, "rows of query_key_value would be ordered head by head"),
    _Fixed("quantization_bit", 0, 0, "quantised weights are not supported; take the 16-bit checkpoint"),
    _Fixed("pre_seq_len", None, None, "a P-tuning prefix is not supported; take the checkpoint without it"),
    _Fixed("vision_config", None, None, "models that read images are not supported"),
)


def unsupported(config: Mapping[str, object]) -> str | None:
    """Why the native class would compute a parsed config.json of this layout wrongly; None if it would not."""
    if "padded_vocab_size" not in config and ("position_encoding_2d" in config or "inner_hidden_size" in config):
        return "ChatGLM-6B of the first generation is another architecture; ChatGLM3-6B is supported"
    name = config.get("_name_or_path")
    if isinstance(name, str) and "chatglm2" in name.lower():
        return f"_name_or_path is {name!r}: ChatGLM2 has a chat format of its own; ChatGLM3-6B is supported"
    for fixed in _FIXED:
        value = config.get(fixed.field, fixed.default)
        # null and 0 both mean "none" in these configs, and in Python 0 equals False.
        if (value or None) != (fixed.needed or None):
            return f"{fixed.field} is {value!r}: {fixed.why}"
    return _bad_numbers(config)


def _bad_numbers(config: Mapping[str, object]) -> str | None:
    for field, default in (("layernorm_epsilon", 1e-5), ("rope_ratio", 1)):
        value = config.get(field, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value > 0):  # type: ignore[arg-type, operator]
            return f"{field} is {value!r}; a positive number is needed"
    return None


def native_extras(config: Mapping[str, object]) -> dict[str, object]:
    """The fields of `GlmConfig` beyond the sizes, from a config that is not `unsupported`."""
    ratio = config.get("rope_ratio", 1)
    assert isinstance(ratio, (int, float))
    rope = {"rope_type": "default", "rope_theta": 10000.0 * ratio, "partial_rotary_factor": 0.5}
    return {
        "rms_norm_eps": config.get("layernorm_epsilon", 1e-5),
        "rope_parameters": rope,
        "pad_token_id": config.get("pad_token_id"),
        "eos_token_id": config.get("eos_token_id"),
    }


def is_rank_list(start: bytes) -> bool:
    """Whether these first bytes of a tokenizer.model begin a list of ranks: lines of a token in base64 and a number."""
    return re.match(rb"[A-Za-z0-9+/]+=* [0-9]+\r?\n", start) is not None


def is_sentencepiece(start: bytes) -> bool:
    """Whether these first bytes of a tokenizer.model are SentencePiece's (ChatGLM3), not a list of ranks (GLM-4)."""
    return all(start[offset : offset + 1] == b"\n" for offset in SENTENCEPIECE_MARK)
