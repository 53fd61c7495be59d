"""The `chatglm` layout through the engine's loader, cache and backend, compared with the published code's logits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contract.plan import Dtype, Precision
from app.contract.status import EngineDown, Ready
from app.contract.wire import Delta, Finished
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.errors import BadCheckpoint
from app.engine.loading import load, weights
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model.attention import use_slots
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import chunk_window
from tests.engine_models import CPU, backend_of, engine_config, load_quietly
from tests.paths import FIXTURES
from tests.processes.engine import EngineProcess, last_of
from tests.tokens import tokens

LENGTH = 256
TOLERANCE = 1e-3
CHATGLM3 = FIXTURES / "chatglm3-tiny"
GLM4_CHAT = FIXTURES / "glm4-9b-chat-tiny"
CODE_FILES = ("configuration_chatglm.py", "modeling_chatglm.py", "tokenization_chatglm.py")


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "LOAD_PIECE_ELEMENTS", 32 * 64)  # several pieces of each weight
        yield


@pytest.fixture(params=[CHATGLM3, GLM4_CHAT], ids=["chatglm3", "glm-4-9b-chat"])
def folder(request: pytest.FixtureRequest) -> Path:
    logits: Path = request.param
    return logits


def load_ours(folder: Path, precision: Precision = "fp32", dtype: Dtype = "float32") -> Any:
    return load_quietly(folder, engine_config(precision, dtype, max_model_len=LENGTH))


def cache_for(folder: Path) -> SlotCache:
    return SlotCache(open_checkpoint(folder).shape, 1, LENGTH, torch.float32, CPU)


def backend_for(folder: Path, chunk: int = 64) -> TransformersBackend:
    return backend_of(load_ours(folder), open_checkpoint(folder), max_model_len=LENGTH, prefill_chunk=chunk)


def reference(folder: Path) -> dict[str, torch.Tensor]:
    with np.load(folder / "expected_logits.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def logits_of(model: Any, cache: SlotCache, ids: torch.Tensor, steps: list[int]) -> torch.Tensor:
    """Float32 logits of all positions, the sequence given in chunks of these sizes."""
    use_slots(model)
    logits: list[torch.Tensor] = []
    start = 0
    for part in ids.long().split(steps, dim=1):
        places = torch.arange(start, start + part.shape[1])[None]
        windows = {CPU: chunk_window(0, start, start := start + part.shape[1], CPU)}
        cache.set_window(windows)
        with torch.inference_mode():
            output = model(input_ids=part, position_ids=places, past_key_values=cache, windows=windows)
        logits.append(output.logits)
    return torch.cat(logits, dim=1)


def distance(model: Any, folder: Path, name: str, steps: list[int] | None = None) -> float:
    """The largest difference from the published code's logits."""
    expected = reference(folder)
    ids, wanted = expected[f"{name}_ids"], expected[f"{name}_logits"]
    logits = logits_of(model, cache_for(folder), ids, steps or [ids.shape[1]])
    return float((logits[:, -wanted.shape[1] :] - wanted).abs().max())


def test_logits_of_a_prefill(folder: Path) -> None:
    model = load_ours(folder)
    for name in ("prefill1", "prefill2", "prefill7", "prefill64"):
        assert distance(model, folder, name) < TOLERANCE
    assert distance(model, folder, "prefill64", [20, 1, 43]) < TOLERANCE


def test_logits_of_decoding_from_the_cache(folder: Path) -> None:
    assert distance(load_ours(folder), folder, "decode", [9, *[1] * 12, 5]) < TOLERANCE


def test_logits_of_a_batch_with_different_lengths(folder: Path) -> None:
    """Padded on the left, through the native class: each row's last logits are those of the row alone."""
    expected = reference(folder)
    rows = [expected[f"prefill{length}_ids"][0].long() for length in (1, 2, 7, 64)]
    wanted = [expected[f"prefill{length}_logits"][0, -1] for length in (1, 2, 7, 64)]
    mask = torch.stack([(torch.arange(64) >= 64 - len(row)).long() for row in rows])
    ids = torch.stack([torch.cat([torch.zeros(64 - len(row), dtype=torch.long), row]) for row in rows])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    model = load_ours(folder)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    assert float((logits - torch.stack(wanted)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_greedy_tokens(folder: Path, chunk: int) -> None:
    expected = reference(folder)
    prompt, whole = (tuple(expected[name][0].tolist()) for name in ("greedy_prompt", "greedy_out"))
    logits = tokens(backend_for(folder, chunk), prompt, count=len(whole) - len(prompt))
    assert logits == list(whole[len(prompt) :])
    assert len(logits) == 24


def swap(model: Any, one: str, other: str) -> None:
    for index in range(len(model.model.layers)):
        first, second = (model.get_submodule(f"model.layers.{index}.{name}") for name in (one, other))
        first.weight, second.weight = second.weight, first.weight
        first.bias, second.bias = second.bias, first.bias


def swap_halves(model: Any) -> None:
    for layer in model.model.layers:
        weight = layer.mlp.gate_up_proj.weight
        weight.copy_(torch.cat([*reversed(weight.chunk(2))]))


def config_with(copy: Path, **changes: Any) -> Any:
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return load_ours(copy)


WRONG: dict[str, Callable[[Path], Any]] = {
    "rotary base": lambda copy: config_with(copy, rope_ratio=2),
    "epsilon": lambda copy: config_with(copy, layernorm_epsilon=1e-2),
    "gate and up": lambda copy: changed(copy, swap_halves),
    "key and value": lambda copy: changed(copy, lambda model: swap(model, "self_attn.k_proj", "self_attn.v_proj")),
}


def changed(copy: Path, change: Callable[[Any], None]) -> Any:
    model = load_ours(copy)
    with torch.inference_mode():
        change(model)
    return model


@pytest.mark.parametrize("wrong", WRONG)
def test_the_tolerance_tells_a_wrong_loader(folder: Path, tmp_path: Path, wrong: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile))
    assert distance(load_ours(copy), folder, "prefill64") < TOLERANCE
    assert distance(WRONG[wrong](copy), folder, "prefill64") > 10 * TOLERANCE


def test_every_row_of_a_joined_tensor_goes_to_its_place() -> None:
    stored = load_file(CHATGLM3 / "model-00001-of-00003.safetensors")
    prefix = "transformer.encoder.layers.0.self_attention.query_key_value"
    attention_of_layer = load_ours(CHATGLM3).model.layers[0].self_attn
    for leaf in ("weight", "bias"):
        parts = [getattr(getattr(attention_of_layer, name), leaf) for name in ("q_proj", "k_proj", "v_proj")]
        assert [len(part) for part in parts] == [64, 32, 32]
        assert torch.equal(torch.cat(parts), stored[f"{prefix}.{leaf}"].float())


@pytest.mark.parametrize(
    ("precision", "dtype", "similar"),
    [
        ("bf16", "bfloat16", 0.995),
        ("fp16", "float16", 0.9999),
        ("int8", "bfloat16", 0.99),
        ("int8", "float32", 0.995),
        ("int4", "bfloat16", 0.7),
        ("int4", "float32", 0.7),
    ],
)
def test_every_rung_loads_and_stays_close(precision: Precision, dtype: Dtype, similar: float) -> None:
    expected = reference(CHATGLM3)
    model = load_ours(CHATGLM3, precision, dtype)
    loaded_bytes = weights.weights_bytes(model)
    with torch.inference_mode():
        logits = model(input_ids=expected["prefill64_ids"].long()).logits[:, -4:].float()
    assert torch.nn.functional.cosine_similarity(logits, expected["prefill64_logits"], dim=-1).min() > similar
    assert weights.weights_bytes(model) <= loaded_bytes


def test_quantised_weights_are_those_of_the_rows() -> None:
    """The projections that are stored as one tensor are quantised one by one: each row keeps its scale."""
    original = load_ours(CHATGLM3).model.layers[1].self_attn
    quantised = load_ours(CHATGLM3, "int8").model.layers[1].self_attn
    x = torch.randn(4, original.q_proj.in_features, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for name in ("q_proj", "k_proj", "v_proj"):
            weight = getattr(original, name).weight
            scale = weight.abs().amax(1, keepdim=True) / 127
            expected = x @ ((weight / scale).round() * scale).t()
            output = getattr(quantised, name)(x) - getattr(quantised, name).bias
            assert torch.allclose(output, expected, atol=2e-3)


def test_progress_counts_every_stored_byte_that_is_loaded() -> None:
    checkpoint = open_checkpoint(CHATGLM3)
    counts: list[int] = []
    config = engine_config("fp16", "float16", max_model_len=LENGTH)
    model = load.load_model(checkpoint, config, counts.append)
    assert sum(counts) == checkpoint.total_bytes == weights.weights_bytes(model)


def test_a_stranger_and_a_missing_tensor_are_named(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CHATGLM3, tmp_path / "copy", copy_function=shutil.copyfile))
    file = copy / "model-00003-of-00003.safetensors"
    tensors = load_file(file)
    prefix = "transformer.prefix_encoder.embedding.weight"
    save_file(tensors | {prefix: torch.ones(8)}, file)
    open_checkpoint(copy)
    save_file(tensors | {"transformer.stranger": torch.ones(8)}, file)
    with pytest.raises(BadCheckpoint, match=r"transformer\.stranger, which is not part of chatglm"):
        open_checkpoint(copy)
    joined = "transformer.encoder.layers.2.mlp.dense_h_to_4h.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != joined}, file)
    with pytest.raises(BadCheckpoint, match=f"1 tensors are missing from the checkpoint, such as {joined}"):
        open_checkpoint(copy)
    save_file(tensors | {joined: tensors[joined][:-1].clone()}, file)
    with pytest.raises(BadCheckpoint, match=rf"{joined} has shape \[255, 64\]"):
        open_checkpoint(copy)


def test_an_engine_answers_and_runs_no_code_of_the_checkpoint(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CHATGLM3, tmp_path / "copy", copy_function=shutil.copyfile))
    mark = tmp_path / "mark"
    for name in CODE_FILES:
        (copy / name).write_text(f"open({str(mark)!r}, 'w').close()\n", encoding="utf-8")
    with EngineProcess(tmp_path, copy, max_model_len=LENGTH) as engine:
        engine.until(Ready)
        replies = engine.answer("你好", max_tokens=12)
        assert isinstance(last_of(replies), Finished)
        assert any(isinstance(reply, Delta) for reply in replies)
    assert not mark.exists()


def test_an_engine_names_what_it_refuses(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CHATGLM3, tmp_path / "copy", copy_function=shutil.copyfile))
    (copy / "tokenizer.model").write_bytes(b"AA== 0\nAQ== 1\n")
    with EngineProcess(tmp_path, copy, max_model_len=LENGTH) as engine:
        down = engine.until(EngineDown)
        assert down.cause == "bad_checkpoint"
        assert "GLM-4-9B-chat's list of ranks: they do not count up from 0" in down.message
