"""Small random checkpoints of every GLM family, with the tensors in their files that no loader takes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

LAYERS = 3
_BASE = CheckpointShape(
    hidden=192, layers=LAYERS, heads=6, kv_heads=2, head_dim=32, intermediate=320, vocab=1000, context=512,
    dtype="float32",
)  # fmt: skip
_EXPERTS = {"moe_intermediate_size": 64, "n_routed_experts": 8, "num_experts_per_tok": 2, "routed_scaling_factor": 1.5}
_LATENT = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64}


def _shape(model_type: str, extra: dict[str, object] | None = None, **changes: object) -> CheckpointShape:
    return dataclasses.replace(_BASE, model_type=model_type, extra=extra or {}, **changes)  # type: ignore[arg-type]


FAMILIES = {
    "chatglm3": _shape("chatglm"),
    "glm-4-9b-chat": _shape("chatglm", {"rope_ratio": 500}, tokenizer="glm4-9b-chat-tiny", attention_bias=False),
    "glm": _shape("glm", heads=5, kv_heads=1, head_dim=64, attention_bias=False),
    "glm tied": _shape("glm", tied=True, dtype="bfloat16"),
    "glm4": _shape("glm4", intermediate=448),
    "glm4_moe": _shape("glm4_moe", _EXPERTS | {"use_qk_norm": True, "n_group": 2, "first_k_dense_replace": 2}),
    "glm4_moe tied": _shape("glm4_moe", _EXPERTS | {"n_shared_experts": 2}, tied=True, attention_bias=False),
    "glm4_moe_lite": _shape("glm4_moe_lite", _EXPERTS | _LATENT | {"q_lora_rank": 128}, kv_heads=6),
    "glm4_moe_lite, plain queries": _shape(
        "glm4_moe_lite", _EXPERTS | _LATENT | {"q_lora_rank": None, "v_head_dim": 32}, kv_heads=6, attention_bias=False
    ),
}
"""Biases on and off, tied and not, weights that fill no whole number of nested 4-bit blocks (64 · 256)."""


def make_family(folder: Path, name: str) -> Path:
    """Writes the checkpoint of a family into several files."""
    shape = FAMILIES[name]
    make_checkpoint(folder, shape, shard_bytes=600_000)
    ignored = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    if "moe" in shape.model_type:
        # As published: a layer for multi-token prediction behind the last.
        ignored |= {
            f"model.layers.{LAYERS}.eh_proj.weight": torch.ones(192, 384),
            f"model.layers.{LAYERS}.mlp.experts.0.gate_proj.weight": torch.ones(64, 192),
            f"model.layers.{LAYERS}.mlp.gate.e_score_correction_bias": torch.ones(8),
        }
    if shape.model_type != "chatglm":  # its own table is written with it
        save_file(ignored, folder / "model-ignored.safetensors")
        index = folder / "model.safetensors.index.json"
        known = json.loads(index.read_text(encoding="utf-8"))
        known["weight_map"] |= dict.fromkeys(ignored, "model-ignored.safetensors")
        index.write_text(json.dumps(known), encoding="utf-8")
    return folder
