"""Every GLM family through the engine's loader: its memory is what the plan counts, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contract.plan import Dtype, Precision
from app.engine.kernels import experts, row_padding
from app.engine.loading import load, weights
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model.kv_cache import SlotCache
from entrypoint.plan import footprint
from tests.engine_models import CPU, backend_of, engine_config, load_quietly, on_cpu, round_weights
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
    ("precision", "dtype"),
    [
        ("fp32", "float32"),
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("int8", "bfloat16"),
        ("int8", "float32"),
        ("int4", "bfloat16"),
    ],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_plan_counts_what_is_held(folders: dict[str, Path], name: str, precision: Precision, dtype: Dtype) -> None:
    checkpoint = open_checkpoint(folders[name])
    planned = on_cpu(footprint.Load(precision, dtype, LENGTH, 1))
    counted = footprint.weights_bytes(checkpoint.layout, checkpoint.shape, planned)
    model = load_ours(folders[name], precision, dtype)
    packed = sum(getattr(module, "packed_bytes", 0) for module in model.modules())
    assert held_bytes(model) + packed == counted
    assert weights.weights_bytes(model) == counted


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cache_takes_what_the_plan_counts(folders: dict[str, Path], name: str) -> None:
    shape = open_checkpoint(folders[name]).shape
    cache = SlotCache(shape, 1, LENGTH, torch.bfloat16, CPU)
    cache_bytes = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))  # type: ignore[union-attr]
    assert cache_bytes == footprint.kv_cache_bytes(shape, footprint.Load("bf16", "bfloat16", LENGTH, 1))


def theirs(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """transformers' own loader."""
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, device_map={"": "cpu"})


@pytest.mark.parametrize("name", MOE)
def test_every_tensor_is_that_of_transformers_own_loader(folders: dict[str, Path], name: str) -> None:
    for precision, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        ours = load_ours(folders[name], precision, dtype).state_dict()  # type: ignore[arg-type]
        expected = theirs(folders[name], dtype=getattr(torch, dtype)).state_dict()
        assert ours.keys() == expected.keys()
        for key, tensor in expected.items():
            assert ours[key].dtype == tensor.dtype
            assert torch.equal(ours[key], tensor), key


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_those_of_transformers_own_loader(
    folders: dict[str, Path], name: str, precision: Precision, plain_bf16: None
) -> None:
    dtype: Dtype = "float32" if precision == "fp32" else "bfloat16"
    ids = torch.randint(0, 900, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = load_ours(folders[name], precision, dtype)
        ours.config._experts_implementation = "grouped_mm"  # the engine's own adds up in another order
        logits = ours(ids).logits
        assert torch.equal(logits, theirs(folders[name], getattr(torch, dtype))(ids).logits)


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 1e-3), ("int4", 0.02)])
@pytest.mark.parametrize("name", MOE)
def test_quantised_logits_are_those_of_the_weights_they_stand_for(
    folders: dict[str, Path], name: str, precision: Precision, tolerance: float
) -> None:
    ids = torch.randint(0, 900, (1, 40), generator=torch.Generator().manual_seed(1))
    rounded = theirs(folders[name])
    round_weights(rounded, open_checkpoint(folders[name]), precision)
    with torch.inference_mode():
        expected, logits = rounded(ids).logits, load_ours(folders[name], precision)(ids).logits
    assert float((logits - expected).norm() / expected.norm()) < tolerance


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
