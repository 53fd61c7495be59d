"""The `chatglm` layout through the engine's own loader, cache and backend, beside the published code's logits."""

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

from app.contract.config import EngineConfig
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
from tests.paths import FIXTURES
from tests.processes.engine import EngineProcess, last_of
from tests.tokens import tokens

CPU = torch.device("cpu")
LENGTH = 256
TOLERANCE = 1e-3
CHATGLM3 = FIXTURES / "chatglm3-tiny"
GLM4_CHAT = FIXTURES / "glm4-9b-chat-tiny"
CODE_FILES = ("configuration_chatglm.py", "modeling_chatglm.py", "tokenization_chatglm.py")


@pytest.fixture(scope="module", autouse=True)
def as_the_engine_runs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "LOAD_PIECE_ELEMENTS", 32 * 64)  # several pieces of each weight
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(params=[CHATGLM3, GLM4_CHAT], ids=["chatglm3", "glm-4-9b-chat"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def load_ours(folder: Path, precision: Precision = "fp32", dtype: Dtype = "float32") -> Any:
    config = EngineConfig(precision, dtype, ("cpu",), {"": "cpu"}, LENGTH, 1, 64, 0, cpu_threads=2)
    return load.load_model(open_checkpoint(folder), config, lambda _count: None)


def cache_for(folder: Path) -> SlotCache:
    return SlotCache(open_checkpoint(folder).shape, 1, LENGTH, torch.float32, CPU)


def backend_for(folder: Path, chunk: int = 64) -> TransformersBackend:
    vocab = open_checkpoint(folder).shape.vocab
    return TransformersBackend(load_ours(folder), cache_for(folder), chunk, vocab)


def reference(folder: Path) -> dict[str, torch.Tensor]:
    with np.load(folder / "expected_logits.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def logits_of(model: Any, cache: SlotCache, ids: torch.Tensor, steps: list[int]) -> torch.Tensor:
    """Float32 logits of all positions, the sequence given in chunks of these sizes."""
    use_slots(model)
    found: list[torch.Tensor] = []
    start = 0
    for part in ids.long().split(steps, dim=1):
        places = torch.arange(start, start + part.shape[1])[None]
        windows = {CPU: chunk_window(0, start, start := start + part.shape[1], CPU)}
        cache.aim(windows)
        with torch.inference_mode():
            output = model(input_ids=part, position_ids=places, past_key_values=cache, windows=windows)
        found.append(output.logits)
    return torch.cat(found, dim=1)


def distance(model: Any, folder: Path, name: str, steps: list[int] | None = None) -> float:
    """The largest difference from the published code's logits."""
    expected = reference(folder)
    ids, wanted = expected[f"{name}_ids"], expected[f"{name}_logits"]
    found = logits_of(model, cache_for(folder), ids, steps or [ids.shape[1]])
    return float((found[:, -wanted.shape[1] :] - wanted).abs().max())


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
        found = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    assert float((found - torch.stack(wanted)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_greedy_tokens(folder: Path, chunk: int) -> None:
    expected = reference(folder)
    prompt, whole = (tuple(expected[name][0].tolist()) for name in ("greedy_prompt", "greedy_out"))
    found = tokens(backend_for(folder, chunk), prompt, count=len(whole) - len(prompt))
    assert found == list(whole[len(prompt) :])
    assert len(found) == 24


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
    held = weights.weights_bytes(model)
    with torch.inference_mode():
        found = model(input_ids=expected["prefill64_ids"].long()).logits[:, -4:].float()
    assert torch.nn.functional.cosine_similarity(found, expected["prefill64_logits"], dim=-1).min() > similar
    assert weights.weights_bytes(model) <= held


def test_quantised_weights_are_those_of_the_rows() -> None:
    """Against bitsandbytes' own quantisation of the same rows, whole."""
    import bitsandbytes.functional as functional

    rows = load_ours(CHATGLM3).model.layers[1].self_attn.v_proj.weight
    quantised = load_ours(CHATGLM3, "int8", "bfloat16").model.layers[1].self_attn.v_proj.weight
    codes, scale, _ = functional.int8_vectorwise_quant(rows.detach().to(torch.bfloat16).to(torch.float16))
    assert torch.equal(quantised.CB, codes)
    assert torch.equal(quantised.SCB, scale)


def test_progress_counts_every_stored_byte_that_is_loaded() -> None:
    checkpoint = open_checkpoint(CHATGLM3)
    counts: list[int] = []
    config = EngineConfig("fp16", "float16", ("cpu",), {"": "cpu"}, LENGTH, 1, 64, 0, cpu_threads=2)
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
    with pytest.raises(BadCheckpoint, match=r"transformer\.stranger, which chatglm does not have"):
        open_checkpoint(copy)
    joined = "transformer.encoder.layers.2.mlp.dense_h_to_4h.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != joined}, file)
    with pytest.raises(BadCheckpoint, match=f"lacks 1 tensors, {joined}"):
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
