"""Every GLM family through the engine's own loader: what is held is what the plan counts, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from app.contract.config import EngineConfig
from app.contract.plan import Dtype, Precision
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.kernels import experts, row_padding
from app.engine.loading import load, quantise, weights
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model.kv_cache import SlotCache
from entrypoint.plan import footprint
from tests.families import FAMILIES, make_family
from tests.tokens import tokens

CPU = torch.device("cpu")
LENGTH = 100
MOE = [name for name in FAMILIES if "moe" in name]
COMPUTED = ("inv_freq", "original_inv_freq")
"""Buffers that are no weights: tables of some hundred bytes."""


@pytest.fixture(scope="module", autouse=True)
def as_the_engine_runs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "LOAD_PIECE_ELEMENTS", 32 * 192)  # several pieces of each weight
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_family(tmp_path_factory.mktemp("family") / "checkpoint", name) for name in FAMILIES}


def load_ours(folder: Path, precision: Precision = "fp32", dtype: Dtype = "float32") -> Any:
    config = EngineConfig(precision, dtype, ("cpu",), {"": "cpu"}, LENGTH, 1, 64, 0, cpu_threads=2)
    return load.load_model(open_checkpoint(folder), config, lambda _count: None)


def tensors_within(thing: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Every tensor that hangs anywhere on a module, a parameter or a quantisation state."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    if isinstance(thing, (torch.nn.Module, torch.Tensor)) or type(thing).__module__.startswith("bitsandbytes"):
        thing = getattr(thing, "__dict__", {})
    if isinstance(thing, dict):
        thing = [value for name, value in thing.items() if name not in COMPUTED]
    if isinstance(thing, (list, tuple)):
        for value in thing:
            yield from tensors_within(value, seen)


def held_bytes(model: Any) -> int:
    """Memory behind all of them, each piece once."""
    storages = {}
    for tensor in tensors_within(model, set()):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@pytest.mark.parametrize(
    ("precision", "dtype", "packed"),
    [
        ("fp32", "float32", False),
        ("bf16", "bfloat16", False),
        ("fp16", "float16", False),
        ("int8", "bfloat16", False),
        ("int8", "float32", False),
        ("int4", "bfloat16", False),
        ("int4", "bfloat16", True),
    ],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_plan_counts_what_is_held(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: Precision,
    dtype: Dtype,
    packed: bool,
) -> None:
    monkeypatch.setattr(quantise.bnb_functional, "has_avx512bf16", lambda: packed)
    checkpoint = open_checkpoint(folders[name])
    planned = footprint.Load(precision, dtype, LENGTH, 1, packed)
    counted = footprint.weights_bytes(checkpoint.layout, checkpoint.shape, planned)
    model = load_ours(folders[name], precision, dtype)
    assert held_bytes(model) == counted
    assert weights.weights_bytes(model) == counted


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cache_takes_what_the_plan_counts(folders: dict[str, Path], name: str) -> None:
    shape = open_checkpoint(folders[name]).shape
    cache = SlotCache(shape, 1, LENGTH, torch.bfloat16, CPU)
    held = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))  # type: ignore[union-attr]
    assert held == footprint.kv_cache_bytes(shape, footprint.Load("bf16", "bfloat16", LENGTH, 1))


def theirs(folder: Path, precision: Precision = "fp32", dtype: torch.dtype = torch.float32) -> Any:
    """transformers' own loader."""
    quantisation = None
    if precision == "int8":
        quantisation = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    if precision == "int4":
        quantisation = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, quantization_config=quantisation, device_map={"": "cpu"}
    )


@pytest.mark.parametrize("name", MOE)
def test_every_tensor_is_that_of_transformers_own_loader(folders: dict[str, Path], name: str) -> None:
    for precision, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        ours = load_ours(folders[name], precision, dtype).state_dict()  # type: ignore[arg-type]
        expected = theirs(folders[name], dtype=getattr(torch, dtype)).state_dict()
        assert ours.keys() == expected.keys()
        for key, tensor in expected.items():
            assert ours[key].dtype == tensor.dtype
            assert torch.equal(ours[key], tensor), key


@pytest.mark.parametrize(
    ("name", "precision"),
    # With latent attention bitsandbytes 0.50.2 fails on transformers' own int8 model.
    [(name, rung) for name in MOE for rung in ("fp32", "bf16", "int8", "int4") if rung != "int8" or "lite" not in name],
)
@pytest.mark.filterwarnings("ignore:.*:FutureWarning")  # transformers' own loader, not ours
def test_logits_are_those_of_transformers_own_loader(folders: dict[str, Path], name: str, precision: Precision) -> None:
    """Of few tokens: packed int4 multiplies many in another order, see test_nf4_linear."""
    dtype: Dtype = "float32" if precision == "fp32" else "bfloat16"
    ids = torch.randint(0, 900, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = load_ours(folders[name], precision, dtype)
        ours.config._experts_implementation = "grouped_mm"  # the engine's own adds up in another order
        found = ours(ids).logits
        assert torch.equal(found, theirs(folders[name], precision, getattr(torch, dtype))(ids).logits)


@pytest.mark.parametrize("count", [1, 5, 40, 200])
def test_experts_one_after_the_other_compute_the_same(folders: dict[str, Path], count: int) -> None:
    hidden = torch.randn(1, count, 192, generator=torch.Generator().manual_seed(3))
    model = load_ours(folders["glm4_moe"])
    assert model.config._experts_implementation == experts.NAME
    with torch.inference_mode():
        found = model.model.layers[2].mlp(hidden)
        model.config._experts_implementation = "grouped_mm"
        assert torch.allclose(found, model.model.layers[2].mlp(hidden), atol=1e-5)


@pytest.mark.parametrize("name", ["glm4", "glm4_moe", "glm4_moe_lite"])
def test_products_have_few_sizes(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each size costs memory for as long as the engine lives."""
    seen: set[int] = set()
    linear = torch.nn.functional.linear

    def recording(x: torch.Tensor, *args: Any) -> torch.Tensor:
        seen.add(x.numel() // x.shape[-1])
        return linear(x, *args)

    checkpoint = open_checkpoint(folders[name])
    cache = SlotCache(checkpoint.shape, 1, LENGTH, torch.float32, CPU)
    backend = TransformersBackend(load_ours(folders[name]), cache, 64, checkpoint.shape.vocab)
    monkeypatch.setattr(torch.nn.functional, "linear", recording)
    for count in range(1, 30):
        assert len(tokens(backend, tuple(range(900 - count, 900)), count=3)) == 3
    assert seen == {1, 16, 32}
    assert {row_padding.filled_up(count) for count in range(1, 513)} == {1, *range(16, 129, 16), *range(192, 513, 64)}


def test_int8_with_latent_attention_stays_close(folders: dict[str, Path]) -> None:
    ids = torch.randint(0, 900, (1, 60), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for name in MOE[2:]:
            exact = load_ours(folders[name])(ids).logits
            found = load_ours(folders[name], "int8", "bfloat16")(ids).logits.float()
            similar = torch.nn.functional.cosine_similarity(found, exact, dim=-1)
            assert similar.median() > 0.999, "where a token's experts stay the same"
            assert similar.min() > 0.9


@pytest.mark.parametrize("name", MOE)
def test_greedy_is_what_generate_gives_at_any_chunk_size(folders: dict[str, Path], name: str) -> None:
    ids = torch.randint(0, 900, (1, 70), generator=torch.Generator().manual_seed(2))
    expected = theirs(folders[name]).generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_length=LENGTH, eos_token_id=None
    )
    checkpoint = open_checkpoint(folders[name])
    model = load_ours(folders[name])
    for chunk in (1, 33, 512):
        cache = SlotCache(checkpoint.shape, 1, LENGTH, torch.float32, CPU)
        backend = TransformersBackend(model, cache, chunk, checkpoint.shape.vocab)
        for _ in range(2):
            assert tokens(backend, tuple(ids[0].tolist())) == expected[0, 70:].tolist()
            backend.prove()


def test_progress_counts_every_stored_byte_of_experts_too(folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(folders["glm4_moe"])
    counts: list[int] = []
    config = EngineConfig("fp32", "float32", ("cpu",), {"": "cpu"}, LENGTH, 1, 64, 0, cpu_threads=2)
    model = load.load_model(checkpoint, config, counts.append)
    assert sum(counts) == checkpoint.total_bytes == weights.weights_bytes(model)
