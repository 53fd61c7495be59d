"""`glm4_moe` and `glm4_moe_lite` as the plan sees them: config.json to sizes, names, bytes, and what is refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from app.layouts.config_fields import LayoutError
from app.layouts.registry import LAYOUTS, layout_of, shape_of
from app.layouts.skeleton import skeleton, stored_tensors
from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from entrypoint.plan.footprint import Load, kv_cache_bytes
from tests.families import FAMILIES, make_family
from tools.checkpoints.make_checkpoint import make_config, native_skeleton, published_fields
from tools.checkpoints.shape import CheckpointShape

AIR = published_fields(make_config(CheckpointShape.published("zai-org/GLM-4.5-Air")))
FLASH = published_fields(make_config(CheckpointShape.published("zai-org/GLM-4.7-Flash")))
BF16 = Load("bf16", "bfloat16", 1, 1)
NATIVE = [name for name in FAMILIES if FAMILIES[name].model_type != "chatglm"]


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**config, **changes}.items() if value is not ...}


@pytest.mark.parametrize("name", NATIVE)
def test_names_and_shapes_are_those_of_the_native_class_and_its_files(name: str) -> None:
    torch = importlib.import_module("torch")
    config = make_config(FAMILIES[name])
    fields = json.loads(json.dumps(published_fields(config)))
    layout, shape = layout_of(fields), shape_of(fields)
    _, stored = native_skeleton(config, torch.float32)
    assert {tensor.name: tensor.shape for tensor in stored} == {t.name: t.shape for t in stored_tensors(layout, shape)}
    with torch.device("meta"):
        model = importlib.import_module("transformers").AutoModelForCausalLM.from_config(config)
    native = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if shape.tied:
        del native["lm_head.weight"]
    assert native == {parameter.name: parameter.shape for parameter in skeleton(layout, shape)}
    linear = {f"{key}.weight" for key, module in model.named_modules() if type(module) is torch.nn.Linear}
    assert linear - {"lm_head.weight"} == {parameter.name for parameter in skeleton(layout, shape) if parameter.linear}
    kept = [key for key in native if any(part in key for part in model._keep_in_fp32_modules_strict or ())]
    assert kept == [parameter.name for parameter in skeleton(layout, shape) if parameter.full_precision]


def test_every_row_of_fused_experts_comes_from_one_place() -> None:
    layout, shape = LAYOUTS["glm4_moe"], shape_of(AIR)
    rows: dict[str, list[tuple[int, int]]] = {}
    for stored in stored_tensors(layout, shape):
        for part in stored.parts:
            rows.setdefault(part.parameter.name, []).append((part.first_row, part.rows))
    for parameter in skeleton(layout, shape):
        spans = sorted(rows[parameter.name])
        assert [first for first, _ in spans] == [sum(n for _, n in spans[:place]) for place in range(len(spans))]
        assert sum(count for _, count in spans) == parameter.rows
    (up,) = [t for t in stored_tensors(layout, shape) if t.name == "model.layers.5.mlp.experts.3.up_proj.weight"]
    assert (up.parts[0].first_row, up.shape) == (3 * 2 * 1408 + 1408, (1408, 4096))


@pytest.mark.parametrize(("config", "kib"), [(AIR, 184), (FLASH, 47 * 576 * 2 / 1024)])
def test_cache_of_a_token(config: dict[str, Any], kib: float) -> None:
    """Grouped heads, and the compressed latents: 52.9 KiB where expanded keys and values would take 940."""
    assert kv_cache_bytes(shape_of(config), BF16) == kib * 1024


def test_layers_for_drafts_are_ignored_and_no_others(tmp_path: Path) -> None:
    layout, shape = LAYOUTS["glm4_moe"], shape_of(AIR)
    assert layout.ignores("model.layers.46.mlp.experts.0.up_proj.weight", shape)
    assert not layout.ignores("model.layers.47.eh_proj.weight", shape)
    assert not layout.ignores("model.layers.4.self_attn.q_proj.weight", shape)
    none = shape_of(AIR | {"num_nextn_predict_layers": 0})
    assert not layout.ignores("model.layers.46.eh_proj.weight", none)
    folder = make_family(tmp_path / "model", "glm4_moe_lite")
    read_checkpoint(folder)
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(fields | {"num_nextn_predict_layers": 0}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.layers\.3\.\S+ is not part of a glm4_moe_lite model"):
        read_checkpoint(folder)


def test_what_config_json_leaves_out_is_what_the_native_class_takes() -> None:
    names = ("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "num_nextn_predict_layers")
    assert shape_of(changed(AIR, dict.fromkeys(names, ...))) == shape_of(AIR)
    assert shape_of(changed(FLASH, {"mlp_layer_types": ..., "num_key_value_heads": ...})) == shape_of(FLASH)
    dense = {"model_type": "glm4", "hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 48}
    dense |= {"num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 600, "max_position_embeddings": 64}
    assert (shape_of(dense).head_dim, shape_of(dense).attention_bias) == (128, True)
    assert shape_of(changed(AIR, {"head_dim": ...})).head_dim == 4096 // 96


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (AIR, {"model_type": "glm_moe_dsa"}, "model_type is 'glm_moe_dsa'; supported: chatglm, glm, glm4, glm4_moe, glm4"),
    (AIR, {"model_type": "glm4v"}, "model_type is 'glm4v'; supported"),
    (AIR, {"n_routed_experts": ...}, "n_routed_experts is None; a whole number"),
    (AIR, {"n_routed_experts": 10**9}, "n_routed_experts is 1000000000; a whole number from 1 to"),
    (AIR, {"n_routed_experts": 1}, "n_group is 1; 1 experts"),
    (AIR, {"n_group": 3}, r"n_group is 3; 128 experts \(n_routed_experts\) make no such groups"),
    (AIR, {"n_group": 4, "topk_group": 5}, "topk_group is 5; a whole number from 1 to 4"),
    (AIR, {"num_experts_per_tok": 129}, "num_experts_per_tok is 129; a whole number from 1 to 128"),
    (AIR, {"n_group": 16, "num_experts_per_tok": 9}, "num_experts_per_tok is 9; a whole number from 1 to 8"),
    (AIR, {"n_shared_experts": 0}, "n_shared_experts is 0"),
    (AIR, {"first_k_dense_replace": 47}, "first_k_dense_replace is 47; a whole number from 0 to 46"),
    (AIR, {"norm_topk_prob": 1}, "norm_topk_prob is 1; true or false"),
    (AIR, {"routed_scaling_factor": -1}, "routed_scaling_factor is -1; a positive number"),
    (AIR, {"use_qk_norm": "yes"}, "use_qk_norm is 'yes'"),
    (AIR, {"num_nextn_predict_layers": -1}, "num_nextn_predict_layers is -1; a whole number from 0"),
    (AIR, {"scoring_func": "softmax"}, "scoring_func is 'softmax'; the native class computes 'sigmoid'"),
    (AIR, {"hidden_act": "gelu"}, "hidden_act is 'gelu'; every published GLM has 'silu'"),
    (AIR, {"rms_norm_eps": 0}, "rms_norm_eps is 0; a positive number"),
    (AIR, {"rope_theta": "big"}, "rope_theta is 'big'; a positive number"),
    (AIR, {"partial_rotary_factor": 1.5}, "partial_rotary_factor is 1.5; the share of a head"),
    (AIR, {"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling has the type 'dynamic': its frequencies"),
    (AIR, {"rope_parameters": {"rope_type": "spiral"}}, "rope_parameters has the type 'spiral'; supported: default"),
    (AIR, {"rope_scaling": {"rope_type": "yarn"}}, "factor is None; a positive number"),
    (AIR, {"rope_scaling": 4}, "rope_scaling is 4; an object"),
    (FLASH, {"kv_lora_rank": 0}, "kv_lora_rank is 0"),
    (FLASH, {"q_lora_rank": -5}, "q_lora_rank is -5"),
    (FLASH, {"qk_rope_head_dim": 63}, "qk_rope_head_dim is 63; pairs are rotated"),
    (FLASH, {"num_key_value_heads": 4}, "num_key_value_heads is 4; latent attention has as many as query heads, 20"),
    (FLASH, {"head_dim": 192}, "head_dim is 192; the native class computes glm4_moe_lite with 64"),
    (FLASH, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; the native class"),
    (FLASH, {"rope_interleave": None}, "rope_interleave is None; true or false"),
    (
        FLASH,
        {"first_k_dense_replace": 3},
        "first_k_dense_replace is 3; the native class takes mlp_layer_types, 1 dense",
    ),
    (FLASH, {"mlp_layer_types": ["sparse", "dense"]}, "mlp_layer_types is .*the dense ones first"),
    (FLASH, {"mlp_layer_types": "dense"}, "mlp_layer_types is dense; for each of 47 layers"),
]


@pytest.mark.parametrize(("config", "changes", "says"), REFUSED, ids=[str(changes) for _, changes, _ in REFUSED])
def test_what_would_be_computed_wrongly_is_refused(config: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LayoutError, match=says):
        shape_of(changed(config, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
        {"n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
        {"first_k_dense_replace": 0},
    ],
)
def test_what_the_native_class_computes_is_taken(changes: dict[str, Any]) -> None:
    assert shape_of(changed(AIR, changes)).layers == 46
