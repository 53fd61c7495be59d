"""The `chatglm` layout as the plan sees it: config.json, headers, bytes."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.layouts.config_fields import LayoutError
from app.layouts.registry import LAYOUTS, layout_of, native_config, shape_of
from app.layouts.skeleton import skeleton, stored_tensors
from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from entrypoint.plan.footprint import Load, kv_cache_bytes, weights_bytes
from entrypoint.plan.planner import make_plan
from tests.paths import FIXTURES, SHARED
from tests.processes.service import run_entrypoint
from tests.sparse import CHATGLM3_6B, GLM4_9B, sparse_checkpoint
from tests.unit.planning import HOST, plan_inputs

TINY = FIXTURES / "chatglm3-tiny"
PUBLISHED = SHARED / "chatglm3-published-tokenizer"
GIB = 1 << 30


def config(**changes: Any) -> dict[str, Any]:
    fields = {**json.loads((TINY / "config.json").read_text(encoding="utf-8")), **changes}
    return {name: value for name, value in fields.items() if value is not ...}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_headers_tell_everything() -> None:
    checkpoint = read_checkpoint(TINY)
    assert (checkpoint.layout.model_type, checkpoint.layout.native) == ("chatglm", "glm")
    assert (checkpoint.shape.kv_heads, checkpoint.shape.vocab, checkpoint.shape.context) == (2, 832, 8192)
    assert checkpoint.stored_dtype == "F16"
    table_bytes = 2 * 4
    assert checkpoint.stored_bytes == 2 * checkpoint.parameters + table_bytes


def test_the_parameters_are_those_of_the_native_class() -> None:
    import torch
    from transformers.models.glm import GlmConfig, GlmForCausalLM

    fields = native_config(config())
    with torch.device("meta"):
        model = GlmForCausalLM(GlmConfig(**fields))  # type: ignore[arg-type]
    native = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert native == {p.name: p.shape for p in skeleton(LAYOUTS["chatglm"], shape_of(config()))}


def test_rows_of_query_key_value_lie_one_behind_the_other() -> None:
    stored = {tensor.name: tensor for tensor in stored_tensors(LAYOUTS["chatglm"], CHATGLM3_6B)}
    joined = stored["transformer.encoder.layers.27.self_attention.query_key_value.weight"]
    names = [part.parameter.name.split(".")[-2] for part in joined.parts]
    assert (names, joined.shape) == (["q_proj", "k_proj", "v_proj"], (4096 + 256 + 256, 4096))
    assert stored["transformer.encoder.layers.0.self_attention.query_key_value.bias"].shape == (4608,)
    assert not [name for name in stored if name.startswith("model.")]


def test_what_config_json_says_reaches_the_native_config() -> None:
    fields = native_config(config(rope_ratio=500, layernorm_epsilon=1.5625e-07, eos_token_id=[5, 6]))
    assert fields is not None
    assert fields["rope_parameters"] == {
        "rope_type": "default",
        "rope_theta": 5_000_000.0,
        "partial_rotary_factor": 0.5,
    }
    assert (fields["rms_norm_eps"], fields["eos_token_id"]) == (1.5625e-07, [5, 6])
    plain = native_config(config())
    assert plain is not None
    assert plain["rope_parameters"]["rope_theta"] == 10_000.0  # type: ignore[index]
    assert native_config({"model_type": "glm"}) is None


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
def test_the_published_config_is_taken() -> None:
    published = json.loads((PUBLISHED / "config.json").read_text(encoding="utf-8"))
    assert shape_of(published) == CHATGLM3_6B


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rmsnorm": False}, "rmsnorm is False: .* LayerNorm"),
    ({"post_layer_norm": False}, "post_layer_norm is False"),
    ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm is True"),
    ({"add_bias_linear": True}, "add_bias_linear is True"),
    ({"multi_query_attention": False}, "multi_query_attention is False"),
    ({"multi_query_attention": ...}, "multi_query_attention is False"),
    ({"quantization_bit": 4}, "quantization_bit is 4: .* take the 16-bit checkpoint"),
    ({"pre_seq_len": 128}, "pre_seq_len is 128: a P-tuning prefix"),
    ({"vision_config": {"layers": 2}}, "models that read images"),
    ({"padded_vocab_size": ..., "position_encoding_2d": True}, "ChatGLM-6B of the first generation"),
    ({"_name_or_path": "THUDM/chatglm2-6b-32k"}, "ChatGLM2 has a chat format of its own"),
    ({"layernorm_epsilon": 0}, "layernorm_epsilon is 0; a positive number"),
    ({"layernorm_epsilon": "small"}, "layernorm_epsilon is 'small'"),
    ({"rope_ratio": float("inf")}, "rope_ratio is inf"),
    ({"kv_channels": 0}, "kv_channels is 0; a whole number"),
    ({"multi_query_group_num": 3}, "not a multiple of multi_query_group_num 3"),
    ({"add_qkv_bias": "yes"}, "add_qkv_bias is 'yes'"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED, ids=[next(iter(changes)) for changes, _ in REFUSED])
def test_variants_that_would_be_computed_wrongly_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LayoutError, match=says):
        shape_of(config(**changes))


@pytest.mark.parametrize(
    "changes", [{"quantization_bit": 0, "pre_seq_len": None}, {"rope_ratio": 50}, {"rmsnorm": ...}]
)
def test_what_means_nothing_is_no_reason(changes: dict[str, Any]) -> None:
    assert layout_of(config(**changes)).model_type == "chatglm"


def rename(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for path in folder.glob("*.safetensors"):
            data = path.read_bytes()
            length = int.from_bytes(data[:8], "little")
            text = data[8 : 8 + length].replace(old.encode(), new.encode())
            path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return edit


def edit_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(config(**changes)), encoding="utf-8") and None


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("renamed", rename("layers.1.mlp.dense_h_to_4h", "layers.1.mlp.stranger"), "layers.1.mlp.dense_h_to_4h.*missing"),
    ("extra", rename("transformer.rotary_pos_emb.inv_freq", "transformer.stranger"), "'transformer.stranger' is not"),
    ("groups", edit_config(multi_query_group_num=4), "query_key_value.* has shape .* config.json says"),
    ("no bias", edit_config(add_qkv_bias=False), "query_key_value.bias' is not part of a chatglm model"),
    ("no tokenizer", lambda folder: (folder / "tokenizer.model").unlink(), "tokenizer.model is missing"),
    (
        "another tokenizer",
        lambda folder: (folder / "tokenizer.model").write_bytes(b'{"version": "1.0"}'),
        "is neither ChatGLM3's SentencePiece model nor GLM-4-9B-chat's list of ranks",
    ),
    ("empty tokenizer", lambda folder: (folder / "tokenizer.model").write_bytes(b""), "is neither ChatGLM3's"),
]


@pytest.mark.parametrize(("damage", "says"), [pytest.param(d, s, id=i) for i, d, s in BROKEN])
def test_damage_is_named_in_one_line(copy: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_a_prefix_encoder_that_is_not_used_is_ignored(copy: Path) -> None:
    rename("transformer.rotary_pos_emb.inv_freq", "transformer.prefix_encoder.embedding.weight")(copy)
    read_checkpoint(copy)


def test_the_published_sizes() -> None:
    layout = LAYOUTS["chatglm"]
    sixteen, eight = (weights_bytes(layout, CHATGLM3_6B, Load(name, "bfloat16", 8192, 1)) for name in ("fp16", "int8"))
    assert round(sixteen / GIB, 2) == 11.63
    row_scales = 4 * sum(p.shape[0] for p in skeleton(layout, CHATGLM3_6B) if p.linear)
    assert (round((eight - row_scales) / GIB, 2), round(eight / GIB, 3)) == (6.31, 6.315)
    assert kv_cache_bytes(CHATGLM3_6B, Load("bf16", "bfloat16", 8192, 1)) == 224 * 1024 * 1024
    assert round(weights_bytes(layout, GLM4_9B, Load("bf16", "bfloat16", 8192, 1)) / GIB, 2) == 17.51


CPU_WEIGHTS = {
    True: {"bf16": 11.630, "int8": 6.364, "int4": 3.984},
    False: {"bf16": 11.630, "int8": 6.337, "int4": 3.984},
}
"""GiB of each rung, by whether the CPU has AVX-512, for which int8 rows are padded further."""


def cpu_weights(rungs: Iterable[tuple[str, str, int]]) -> dict[str, float]:
    return {precision: round(size / GIB, 3) for precision, device, size in rungs if device == "cpu"}


@pytest.mark.parametrize(("bf16", "avx512"), [(True, True), (False, True), (False, False)])
def test_the_weights_of_the_published_shape_on_each_kind_of_cpu(bf16: bool, avx512: bool) -> None:
    host = replace(HOST, cpu_bf16=bf16, cpu_avx512=avx512)
    plan = make_plan(plan_inputs(CHATGLM3_6B, layout=LAYOUTS["chatglm"], host=host))
    weights = cpu_weights((rung.precision, rung.device, rung.terms[0].bytes) for rung in plan.rungs)
    assert CPU_WEIGHTS[avx512].items() <= weights.items()


def test_the_plan_command_for_the_published_shape(tmp_path: Path) -> None:
    folder = sparse_checkpoint(tmp_path / "chatglm3-6b", CHATGLM3_6B, "chatglm")
    done = run_entrypoint("plan", "--json", GLM_MODEL=str(folder), GLM_STATE_DIR=str(tmp_path / "state"))
    plan = json.loads(done.stdout)
    assert (plan["model"]["layout"], plan["model"]["parameters"]) == ("chatglm", 6_243_584_000)
    weights = cpu_weights((rung["precision"], rung["device"], rung["terms"][0]["bytes"]) for rung in plan["rungs"])
    assert CPU_WEIGHTS[plan["host"]["cpu_avx512"]].items() <= weights.items()
