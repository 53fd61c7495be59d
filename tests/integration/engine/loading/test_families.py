"""Every GLM family through the engine's loader: its memory is what the plan counts, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from app.contract.plan import Dtype, Precision
from app.engine.kernels import experts, row_padding
from app.engine.loading import load, quantise, weights
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model.kv_cache import SlotCache
from entrypoint.plan import footprint
from tests.engine_models import CPU, backend_of, engine_config, load_quietly
from tests.families import FAMILIES, make_family
from tests.tokens import tokens

LENGTH = 100
MOE = [name for name in FAMILIES if "moe" in name]
COMPUTED = ("inv_freq", "original_inv_freq")
"""Buffers that are not weights: tables of some hundred bytes."""


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "LOAD_PIECE_ELEMENTS", 32 * 192)  # several pieces of each weight
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_family(tmp_path_factory.mktemp("family") / "checkpoint", name) for name in FAMILIES}


def load_ours(folder: Path, precision: Precision = "fp32", dtype: Dtype = "float32") -> Any:
    return load_quietly(folder, engine_config(precision, dtype, max_model_len=LENGTH))


def tensors_within(thing: Any, sizes: set[int]) -> Iterator[torch.Tensor]:
    """Every tensor of a module, a parameter or a quantisation state, at any depth."""
    if id(thing) in sizes:
        return
    sizes.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    if isinstance(thing, (torch.nn.Module, torch.Tensor)) or type(thing).__module__.startswith("bitsandbytes"):
        thing = getattr(thing, "__dict__", {})
    if isinstance(thing, dict):
        thing = [value for name, value in thing.items() if name not in COMPUTED]
    if isinstance(thing, (list, tuple)):
        for value in thing:
            yield from tensors_within(value, sizes)


def held_bytes(model: Any) -> int:
    """Memory of all of them; shared storage counts once."""
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
    cache_bytes = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))  # type: ignore[union-attr]
    assert cache_bytes == footprint.kv_cache_bytes(shape, footprint.Load("bf16", "bfloat16", LENGTH, 1))


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
    """For few tokens: packed int4 multiplies many in another order (test_nf4_linear)."""
    dtype: Dtype = "float32" if precision == "fp32" else "bfloat16"
    ids = torch.randint(0, 900, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = load_ours(folders[name], precision, dtype)
        ours.config._experts_implementation = "grouped_mm"  # the engine's own adds up in another order
        logits = ours(ids).logits
        assert torch.equal(logits, theirs(folders[name], precision, getattr(torch, dtype))(ids).logits)


@pytest.mark.parametrize("count", [1, 5, 40, 200])
def test_experts_one_after_the_other_compute_the_same(folders: dict[str, Path], count: int) -> None:
    hidden = torch.randn(1, count, 192, generator=torch.Generator().manual_seed(3))
    model = load_ours(folders["glm4_moe"])
    assert model.config._experts_implementation == experts.EXPERTS_IMPLEMENTATION
    with torch.inference_mode():
        logits = model.model.layers[2].mlp(hidden)
        model.config._experts_implementation = "grouped_mm"
        assert torch.allclose(logits, model.model.layers[2].mlp(hidden), atol=1e-5)


@pytest.mark.parametrize("name", ["glm4", "glm4_moe", "glm4_moe_lite"])
def test_products_have_few_sizes(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each size costs memory for as long as the engine lives."""
    sizes: set[int] = set()
    linear = torch.nn.functional.linear

    def recording(x: torch.Tensor, *args: Any) -> torch.Tensor:
        sizes.add(x.numel() // x.shape[-1])
        return linear(x, *args)

    checkpoint = open_checkpoint(folders[name])
    backend = backend_of(load_ours(folders[name]), checkpoint, max_model_len=LENGTH)
    monkeypatch.setattr(torch.nn.functional, "linear", recording)
    for count in range(1, 30):
        assert len(tokens(backend, tuple(range(900 - count, 900)), count=3)) == 3
    assert sizes == {1, 16, 32}
    assert {row_padding.padded_rows(count) for count in range(1, 513)} == {1, *range(16, 129, 16), *range(192, 513, 64)}


def test_int8_with_latent_attention_stays_close(folders: dict[str, Path]) -> None:
    ids = torch.randint(0, 900, (1, 60), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for name in MOE[2:]:
            exact = load_ours(folders[name])(ids).logits
            logits = load_ours(folders[name], "int8", "bfloat16")(ids).logits.float()
            similar = torch.nn.functional.cosine_similarity(logits, exact, dim=-1)
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
        backend = backend_of(model, checkpoint, max_model_len=LENGTH, prefill_chunk=chunk)
        for _ in range(2):
            assert tokens(backend, tuple(ids[0].tolist())) == expected[0, 70:].tolist()
            backend.profile_run()


def test_progress_counts_every_stored_byte_of_experts_too(folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(folders["glm4_moe"])
    counts: list[int] = []
    config = engine_config(max_model_len=LENGTH)
    model = load.load_model(checkpoint, config, counts.append)
    assert sum(counts) == checkpoint.total_bytes == weights.weights_bytes(model)
