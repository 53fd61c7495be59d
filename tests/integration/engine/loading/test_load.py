"""The loader, the cache and the backend, compared with transformers' own on the same checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import Linear
from transformers import AutoModelForCausalLM

from app.contract.plan import Dtype, Precision
from app.contract.wire import Message, SamplingParams
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.errors import BadCheckpoint
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.formats.open import load_format
from app.engine.formats.parsing.parts import ToolCallPart
from app.engine.kernels import bf16_linear
from app.engine.kernels.bf16_linear import Bf16Linear
from app.engine.kernels.cpu_kind import FORM_CHANGES
from app.engine.loading import load, weights
from app.engine.loading.checkpoint import CheckpointFiles, open_checkpoint
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import batch_window, chunk_window
from app.engine.sampling import Sampling, SamplingDefaults, read_defaults
from app.layouts.registry import LAYOUTS
from tests.engine_models import CPU, backend_of, engine_config, load_quietly, round_weights
from tests.processes.engine import TINY
from tests.tokens import tokens
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

LENGTH = 130
SHAPES = {
    "glm4": TINY,
    "glm": dataclasses.replace(TINY, model_type="glm", attention_bias=False, heads=6, kv_heads=1, head_dim=64),
    "tied": dataclasses.replace(TINY, tied=True, dtype="bfloat16"),
}


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "LOAD_PIECE_ELEMENTS", 32 * 128)  # several pieces, also of small weights
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, shape in SHAPES.items():
        made[name] = tmp_path_factory.mktemp(name) / "checkpoint"
        make_checkpoint(made[name], shape, shard_bytes=500_000)
    return made


def load_ours(checkpoint: CheckpointFiles, precision: Precision = "fp32", dtype: Dtype = "float32") -> Any:
    return load_quietly(checkpoint, engine_config(precision, dtype, max_model_len=LENGTH))


def backend_for(folder: Path, chunk: int) -> TransformersBackend:
    checkpoint = open_checkpoint(folder)
    return backend_of(load_ours(checkpoint), checkpoint, max_model_len=LENGTH, prefill_chunk=chunk)


def prompt(count: int, seed: int = 1) -> tuple[int, ...]:
    ids = torch.randint(0, 580, (count,), generator=torch.Generator().manual_seed(seed))
    return tuple(ids.tolist())


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_is_what_generate_gives_at_any_chunk_size(folders: dict[str, Path], name: str) -> None:
    theirs: Any = AutoModelForCausalLM.from_pretrained(str(folders[name]), dtype=torch.float32)
    ids = prompt(100)
    expected = theirs.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, 100), do_sample=False, max_length=LENGTH, eos_token_id=None
    )
    for chunk in (1, 33, 512):
        backend = backend_for(folders[name], chunk)
        assert tokens(backend, ids) == expected[0, 100:].tolist()
        backend.profile_run()
        assert tokens(backend, ids[:40])[:20] == tokens(backend, ids[:40])[:20]
        assert tokens(backend, ids) == expected[0, 100:].tolist()


@pytest.mark.parametrize("name", ["glm4", "tied"])
def test_logits_equal_those_of_transformers_own_loader(folders: dict[str, Path], name: str, plain_bf16: None) -> None:
    ours = load_ours(open_checkpoint(folders[name]), "bf16", "bfloat16")
    theirs = AutoModelForCausalLM.from_pretrained(str(folders[name]), dtype=torch.bfloat16, device_map={"": "cpu"})
    ids = torch.tensor([prompt(60)])
    with torch.inference_mode():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [("int8", "float32", 1e-3), ("int8", "bfloat16", 0.02), ("int4", "float32", 0.02), ("int4", "bfloat16", 0.02)],
)
@pytest.mark.parametrize("name", ["glm4", "tied"])
def test_quantised_logits_are_those_of_the_weights_they_stand_for(
    folders: dict[str, Path], name: str, precision: Precision, dtype: Dtype, tolerance: float
) -> None:
    checkpoint = open_checkpoint(folders[name])
    ours = load_ours(checkpoint, precision, dtype)
    theirs: Any = AutoModelForCausalLM.from_pretrained(str(folders[name]), dtype=getattr(torch, dtype)).float()
    round_weights(theirs, checkpoint, precision)
    ids = torch.tensor([prompt(60)])
    loaded_bytes = weights.weights_bytes(ours)
    with torch.inference_mode():
        expected, logits = theirs(ids).logits, ours(ids).logits.float()
    assert float((logits - expected).norm() / expected.norm()) < tolerance
    assert weights.weights_bytes(ours) == loaded_bytes


@pytest.mark.parametrize(
    ("precision", "dtype", "kind"), [("bf16", "bfloat16", Bf16Linear), ("fp32", "float32", Linear)]
)
def test_linear_layers_where_the_cpu_has_no_bf16(
    folders: dict[str, Path], precision: Precision, dtype: Dtype, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_linear, "form_changes", lambda: FORM_CHANGES["other"])
    model = load_quietly(folders["glm4"], engine_config(precision, dtype, max_model_len=LENGTH))
    assert {type(module) for module in model.modules() if isinstance(module, Linear)} == {kind}


def test_progress_counts_every_stored_byte(folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(folders["glm4"])
    counts: list[int] = []
    model = load.load_model(checkpoint, engine_config("bf16", "bfloat16", max_model_len=LENGTH), counts.append)
    assert sum(counts) == checkpoint.total_bytes
    assert weights.weights_bytes(model) == checkpoint.total_bytes // 2
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_cache_never_grows(folders: dict[str, Path]) -> None:
    cache = SlotCache(open_checkpoint(folders["glm4"]).shape, 3, 8, torch.float32, CPU)
    layer: Any = cache.layers[0]
    place = layer.keys.data_ptr()
    cache.set_window({CPU: chunk_window(1, 0, 5, CPU)})
    keys, _ = cache.update(torch.ones(1, 2, 5, 32), torch.ones(1, 2, 5, 32), 0)
    assert keys.shape == (1, 2, 5, 32)
    assert keys.data_ptr() == place + layer.keys[0].nbytes
    cache.set_window({CPU: batch_window([0, 1], [7, 5], CPU)})
    both = torch.full((2, 2, 1, 32), 2.0)
    keys, _ = cache.update(both, both, 0)
    assert keys.shape == (2, 2, 8, 32)
    assert keys.data_ptr() == place
    assert keys[:, 0, :, 0].tolist() == [[0, 0, 0, 0, 0, 0, 0, 2], [1, 1, 1, 1, 1, 2, 0, 0]]
    for window in (chunk_window(1, 5, 10, CPU), batch_window([0], [9], CPU)):
        with pytest.raises(IndexError, match="holds 8 tokens, 10"):
            cache.set_window({CPU: window})
    assert cache.get_max_length() == 8


def test_sampling_follows_the_request_then_the_checkpoint(folders: dict[str, Path], tmp_path: Path) -> None:
    defaults = read_defaults(folders["glm4"])
    assert (defaults.temperature, defaults.top_p) == (0.8, 0.8)
    resolved = defaults.resolve(SamplingParams(temperature=0.0, seed=-1))
    assert (resolved.temperature, resolved.top_p, resolved.seed) == (0.0, 0.8, (1 << 64) - 1)
    assert read_defaults(tmp_path) == SamplingDefaults(), "no file means greedy, as in transformers"
    request = SamplingParams(top_k=0, min_p=0.1, repetition_penalty=1.5, presence_penalty=-1.0, frequency_penalty=0.5)
    assert defaults.resolve(request) == Sampling(
        temperature=0.8,
        top_p=0.8,
        top_k=0,
        seed=ANY,
        min_p=0.1,
        repetition_penalty=1.5,
        presence_penalty=-1.0,
        frequency_penalty=0.5,
    )
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": "hot"}')
    with pytest.raises(BadCheckpoint, match="temperature is 'hot'"):
        read_defaults(tmp_path)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"do_sample": True, "top_k": 50, "min_p": 0.05, "repetition_penalty": 1.1},
            SamplingDefaults(1.0, 1.0, 50, 0.05, 1.1),
        ),
        ({"do_sample": False, "top_k": 50, "repetition_penalty": 1.1}, SamplingDefaults(repetition_penalty=1.1)),
        ({"repetition_penalty": 1.1}, SamplingDefaults(0.8, 0.7, repetition_penalty=1.1)),
        ({"top_k": 50}, SamplingDefaults(0.8, 0.7)),
    ],
)
def test_the_checkpoint_may_set_every_rule(fields: dict[str, Any], expected: SamplingDefaults, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(fields))
    defaults = read_defaults(tmp_path, SamplingDefaults(0.8, 0.7))
    assert defaults == expected
    assert defaults.resolve(SamplingParams()).repetition_penalty == 1.1 or "repetition_penalty" not in fields


def test_a_repetition_penalty_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"repetition_penalty": 0}')
    with pytest.raises(BadCheckpoint, match="repetition_penalty is 0"):
        read_defaults(tmp_path)


def prompt_ids(chat: ChatFormat, text: str) -> tuple[int, ...]:
    return chat.prompt(PromptRequest((Message("user", text),))).ids


def test_control_tokens_that_people_write_are_text(folders: dict[str, Path]) -> None:
    chat = load_format(folders["glm4"], TINY.vocab)
    plain = prompt_ids(chat, "hello there")
    control = set(range(TINY.vocab - 10, TINY.vocab))
    marked = prompt_ids(chat, "hello <|user|>[gMASK]<|endoftext|> there")
    assert [token for token in marked if token in control] == [token for token in plain if token in control]
    assert plain[3:-2] == chat.encode("\nhello there")
    assert marked[3:-2] == chat.encode("\nhello <|user|>[gMASK]<|endoftext|> there")
    assert "<|user|>[gMASK]" in chat.decode(marked[3:])


def test_stop_ids_come_from_every_file(folders: dict[str, Path], tmp_path: Path) -> None:
    chat = load_format(folders["glm4"], TINY.vocab)
    assert len(chat.stop_ids) == 3
    text = "你好, wörld 😀"
    parser = chat.parser(PromptRequest(()), ())
    pieces = [piece for token in chat.encode(text) for piece in parser.push(token)] + list(parser.end())
    assert "".join(piece.text for piece in pieces if not isinstance(piece, ToolCallPart)) == text


def test_a_tokenizer_larger_than_the_model_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(BadCheckpoint, match="vocabulary ends at 499"):
        load_format(folders["glm4"], 500)


def test_the_format_is_safe_from_many_threads(folders: dict[str, Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    chat = load_format(folders["glm4"], TINY.vocab)
    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(lambda _: prompt_ids(chat, "hello"), range(100)))
    assert len(results) == 1


def test_int4_names_a_shape_that_its_kernels_cannot_take(tmp_path: Path) -> None:
    shape = CheckpointShape(
        hidden=96, layers=1, heads=2, kv_heads=1, head_dim=32, intermediate=128, vocab=600, context=64
    )
    make_checkpoint(tmp_path / "odd", shape)
    with pytest.raises(BadCheckpoint, match=r"rows of 96 weights; int4 needs a multiple of 64"):
        load_ours(open_checkpoint(tmp_path / "odd"), "int4", "bfloat16")


def test_stored_rotary_tables_are_ignored_and_strangers_are_not(folders: dict[str, Path], tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", TINY)
    file = tmp_path / "c" / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, file)
    open_checkpoint(tmp_path / "c")
    save_file(tensors | {"model.layers.7.stranger": torch.ones(8)}, file)
    with pytest.raises(BadCheckpoint, match=r"model\.layers\.7\.stranger"):
        open_checkpoint(tmp_path / "c")
    save_file({name: tensor.to(torch.float64) for name, tensor in tensors.items()}, file)
    with pytest.raises(BadCheckpoint, match="stored as F64"):
        open_checkpoint(tmp_path / "c")


def test_every_layout_has_its_native_class() -> None:
    assert load.NATIVE_CLASSES.keys() == {layout.native for layout in LAYOUTS.values()}


def test_a_missing_shard_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", TINY, shard_bytes=500_000)
    shard = sorted((tmp_path / "c").glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(BadCheckpoint, match=f"{shard.name} is missing"):
        open_checkpoint(tmp_path / "c")
    index = tmp_path / "c" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": None}))
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        open_checkpoint(tmp_path / "c")
