from __future__ import annotations

from dataclasses import replace

import pytest

from app.contract.plan import Dtype, Precision
from app.layouts.registry import LAYOUTS
from app.layouts.shape import Experts, Latent, Parameter, Shape
from app.layouts.skeleton import skeleton
from entrypoint.checkpoint.quantised import StoredFormat
from entrypoint.plan.activations import GRAPH_LAYER_BYTES, Load, activation_bytes, context_bytes, graph_bytes
from entrypoint.plan.footprint import (
    LayerSpan,
    code_bytes,
    estimate,
    kv_cache_bytes,
    parameter_bytes,
    runtime_bytes,
    saved_bytes,
    tokenizer_bytes,
    weights_bytes,
)
from entrypoint.plan.planner import make_plan
from entrypoint.settings.settings import Settings
from tests.unit.planning import GIB, GLM4_9B, HOST, SMALL, gpu, plan_inputs

LINEAR = Parameter("w", (256, 192), linear=True)
FLASH = Shape(
    layers=47,
    hidden=2048,
    heads=20,
    kv_heads=20,
    head_dim=256,
    intermediate=10240,
    vocab=154880,
    context=202752,
    attention_bias=False,
    tied=False,
    experts=Experts(count=64, per_token=4, intermediate=1536, shared=1, dense_layers=1),
    latent=Latent(768, 512, 192, 64, 256),
)
"""GLM-4.7-Flash."""


def load(precision: str, packed: bool = False) -> Load:
    return Load(precision, "bfloat16", 8192, 1, packed=packed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (load("bf16"), 256 * 192 * 2),
        (Load("fp32", "float32", 8192, 1), 256 * 192 * 4),
        (load("int8"), 256 * 192 + 4 * 256),
        (load("int4"), 256 * 192 // 2 + 768 + 4 * 3 + 64 + 1024 + 4),
        (load("int4", packed=True), 256 * 192 // 2 + 2 * 768 + 64),
        (replace(load("int8"), cpu_form=True), 256 * 512 + 12 * 256),
        (replace(load("int8"), cpu_form=True, avx512=True), 288 * 512 + 12 * 256),
        (replace(load("int4"), cpu_form=True), 256 * 192 // 2 + 4 * 768),
    ],
)
def test_a_linear_weight_with_its_quantisation_state(given: Load, count: int) -> None:
    assert parameter_bytes(LINEAR, given) == count


def test_what_is_no_linear_stays_in_16_bits() -> None:
    assert parameter_bytes(Parameter("norm", (10,)), load("int4")) == 20


@pytest.mark.parametrize(("precision", "gib"), [("bf16", 17.51), ("int8", 9.91), ("int4", 6.23)])
def test_glm_4_9b_is_as_large_as_measured_elsewhere(precision: str, gib: float) -> None:
    """The house's measured facts (reference: memory-and-gpu-hosts, section 1)."""
    assert weights_bytes(LAYOUTS["glm4"], GLM4_9B, load(precision)) / GIB == pytest.approx(gib, abs=0.011)


def test_glm_4_9b_has_40_kib_of_cache_a_token() -> None:
    assert kv_cache_bytes(GLM4_9B, load("bf16")) == 8192 * 40 * 1024


WIDE = Shape(
    layers=6,
    hidden=2048,
    heads=16,
    kv_heads=2,
    head_dim=128,
    intermediate=6848,
    vocab=32768,
    context=8192,
    attention_bias=True,
    tied=False,
)


@pytest.mark.parametrize(
    ("shape", "precision", "context", "measured_mb"),
    [
        (SMALL, "bf16", 4096, 31),
        (SMALL, "bf16", 8192, 34),
        (SMALL, "int4", 4096, 39),
        (WIDE, "bf16", 4096, 48),
        (WIDE, "bf16", 8192, 51),
        (WIDE, "int4", 8192, 65),
    ],
)
def test_activations_bound_what_the_proof_measured(
    shape: Shape, precision: str, context: int, measured_mb: int
) -> None:
    """Anonymous memory of the engine's proof beyond weights and cache, 2 AMD EPYC cores with AVX-512; of int4 (stored
    nf4) and FLASH_LIKE 2 Intel cores with AMX, without compiled code. For the CPU's own int8 and int4 see
    tests/bench/plan_accuracy."""
    given = replace(load(precision, packed=True), max_model_len=context, avx512=True)
    planned = activation_bytes(shape, given, on_gpu=False)
    assert measured_mb * 1e6 <= planned <= 2 * measured_mb * 1e6


VAST = replace(WIDE, vocab=151552, context=32768)


@pytest.mark.parametrize(
    ("shape", "precision", "context", "slots", "measured_mb"),
    [
        (SMALL, "bf16", 4096, 16, 12),
        (VAST, "bf16", 4096, 4, 28),
        (VAST, "bf16", 4096, 16, 58),
        (VAST, "bf16", 2048, 64, 115),
    ],
)
def test_activations_bound_what_full_batches_took(
    shape: Shape, precision: str, context: int, slots: int, measured_mb: int
) -> None:
    """As above, with a token of every slot at full length, sampled and with log probabilities."""
    given = replace(load(precision, packed=True), max_model_len=context, max_num_seqs=slots, avx512=True)
    planned = activation_bytes(shape, given, on_gpu=False)
    assert measured_mb * 1e6 <= planned <= 2 * measured_mb * 1e6 + 40e6


FEW_EXPERTS = Shape(
    layers=4,
    hidden=1024,
    heads=16,
    kv_heads=4,
    head_dim=64,
    intermediate=2048,
    vocab=8192,
    context=16384,
    attention_bias=True,
    tied=False,
    experts=Experts(count=16, per_token=4, intermediate=512, shared=1, dense_layers=1),
)
MORE_EXPERTS = Shape(
    layers=3,
    hidden=2048,
    heads=32,
    kv_heads=4,
    head_dim=64,
    intermediate=4096,
    vocab=32768,
    context=16384,
    attention_bias=True,
    tied=False,
    experts=Experts(count=24, per_token=8, intermediate=704, shared=1, dense_layers=1),
)
FLASH_LIKE = replace(
    FLASH,
    layers=3,
    intermediate=4096,
    vocab=32768,
    attention_bias=True,
    experts=Experts(count=8, per_token=4, intermediate=1536, shared=1, dense_layers=1),
)
UNEVEN = replace(FEW_EXPERTS, layers=3, heads=8, kv_heads=8, head_dim=192, latent=Latent(256, 256, 128, 64, 128))
LATENT = replace(FEW_EXPERTS, heads=8, kv_heads=8, head_dim=128, latent=Latent(256, 256, 96, 32, 128))


@pytest.mark.parametrize(
    ("shape", "precision", "context", "measured_mb"),
    [
        (FEW_EXPERTS, "bf16", 4096, 20),
        (FEW_EXPERTS, "int4", 4096, 16),
        (MORE_EXPERTS, "bf16", 8192, 33),
        (LATENT, "bf16", 2048, 37),
        (LATENT, "bf16", 8192, 81),
        (LATENT, "int4", 8192, 76),
        (FLASH_LIKE, "bf16", 8192, 437),
        (FLASH_LIKE, "int4", 4096, 241),
        (UNEVEN, "bf16", 4096, 261),
    ],
)
def test_activations_of_experts_and_latents_bound_what_the_proof_measured(
    shape: Shape, precision: str, context: int, measured_mb: int
) -> None:
    """As above; these shapes are so small that the constant parts of the formula weigh much."""
    given = replace(load(precision, packed=True), max_model_len=context, avx512=True)
    planned = activation_bytes(shape, given, on_gpu=False)
    assert measured_mb * 1e6 <= planned <= 2 * measured_mb * 1e6 + 40e6


def test_a_shape_that_the_4_bit_kernels_cannot_take_is_no_rung() -> None:
    odd = replace(SMALL, intermediate=4000)
    plan = make_plan(plan_inputs(odd, host=replace(HOST, available_bytes=GIB)))
    (rung,) = [rung for rung in plan.rungs if rung.precision == "int4"]
    assert (rung.verdict, rung.reason.code) == ("unsupported", "rows_not_in_blocks")


def test_the_skeleton_of_a_tied_model_has_one_embedding() -> None:
    names = [parameter.name for parameter in skeleton(LAYOUTS["glm"], replace(SMALL, tied=True))]
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names))


def test_a_mixture_of_experts_says_how_little_quantising_saves() -> None:
    """Flash's 29.9 B parameters: 55.77 GiB in bf16, 54.36 in int8, 53.67 in int4 (measured elsewhere)."""
    settings = Settings(model="x", max_model_len=2048)
    host = replace(HOST, available_bytes=int(57.5 * GIB))
    plan = make_plan(plan_inputs(FLASH, settings, layout=LAYOUTS["glm4_moe_lite"], host=host))
    rungs = {rung.precision: rung for rung in plan.rungs}
    assert (rungs["bf16"].verdict, rungs["bf16"].notes) == ("too_large", ())
    form, note = rungs["int8"].notes
    assert (form.code, form.values["on_cpu"], form.values["on_gpu"]) == (
        "weight_form",
        "cpu" in rungs["int8"].devices,
        False,
    )
    assert note.code == "experts_stay"
    assert note.en == "int8 saves only 1.41 GiB: experts are not quantised, 54.36 GiB of weights remain"
    assert plan.chosen is not None
    assert "int8 只省下 1.41 GiB：专家层不会量化" in plan.chosen.notes[1].zh
    _, note = rungs["int4"].notes
    assert (note.values["precision"], round(note.values["saved_bytes"] / GIB, 2)) == ("int4", 2.10)
    stored = StoredFormat("bitsandbytes nf4", "int4", True, 53 * GIB)
    (as_stored, *_) = make_plan(
        plan_inputs(FLASH, settings, layout=LAYOUTS["glm4_moe_lite"], host=host, stored=stored)
    ).rungs
    assert (as_stored.reason.code, as_stored.notes) == ("fits_as_stored", ())
    dense = make_plan(plan_inputs(GLM4_9B)).rungs
    forms = {rung.precision: [note.code for note in rung.notes] for rung in dense}
    assert {precision: codes for precision, codes in forms.items() if codes} == {
        "int8": ["weight_form"],
        "int4": ["weight_form"],
    }


def test_what_quantising_saves_is_counted_from_the_compute_dtype() -> None:
    for precision, dtype in (("int8", "bfloat16"), ("int8", "float32"), ("int4", "bfloat16")):
        given = Load(precision, dtype, 1, 1)  # type: ignore[arg-type]
        plain = replace(given, precision="fp32" if dtype == "float32" else "bf16")
        assert saved_bytes(LAYOUTS["glm4_moe_lite"], FLASH, given) == weights_bytes(
            LAYOUTS["glm4_moe_lite"], FLASH, plain
        ) - weights_bytes(LAYOUTS["glm4_moe_lite"], FLASH, given)


@pytest.mark.parametrize(("slots", "measured_mb"), [(1, 47), (4, 99), (16, 375)])
def test_latents_of_every_slot_are_expanded(slots: int, measured_mb: int) -> None:
    shape = replace(LATENT, layers=3)
    given = replace(load("bf16"), max_model_len=4096, max_num_seqs=slots)
    assert measured_mb * 1e6 <= activation_bytes(shape, given, on_gpu=False) <= 1.8 * measured_mb * 1e6


def test_a_tokenizer_json_is_counted_by_its_ids() -> None:
    """101 MiB were measured for 151,552 ids, 15.5 of them also for 8,192; a tokenizer.model is in the runtime."""
    assert tokenizer_bytes(LAYOUTS["glm4"], VAST) >= 85.5 * 2**20
    assert tokenizer_bytes(LAYOUTS["chatglm"], VAST) == 0


@pytest.mark.parametrize(("precision", "mib"), [("bf16", 43), ("int8", 8), ("int4", 7), ("fp32", 0)])
def test_code_compiled_in_service_is_planned(precision: Precision, mib: int) -> None:
    """What the engine's memory grew by after the proof, until every number of rows had been met."""
    demo = Shape(
        layers=4,
        hidden=256,
        heads=4,
        kv_heads=2,
        head_dim=64,
        intermediate=512,
        vocab=2048,
        context=2048,
        attention_bias=True,
        tied=False,
    )
    dtype: Dtype = "float32" if precision == "fp32" else "bfloat16"
    assert mib * 2**20 <= code_bytes(LAYOUTS["glm4"], demo, Load(precision, dtype, 8192, 1)) <= 1.7 * mib * 2**20


def test_code_of_packed_int4_is_planned() -> None:
    """What stayed of the proof of 256 M parameters (tests/bench/serving's) above the kernel's own, 17 MiB."""
    plain, packed = (code_bytes(LAYOUTS["glm4"], SMALL, load("int4", packed)) for packed in (False, True))
    assert 16 * 2**20 <= packed <= 1.7 * 16 * 2**20
    assert plain < packed
    assert code_bytes(LAYOUTS["glm4"], SMALL, load("int8", packed=True)) == plain


def test_flash_expands_27_5_kib_of_a_cached_token() -> None:
    given = Load("bf16", "bfloat16", 131072, 1)
    assert context_bytes(FLASH, given, 512, on_gpu=True) == 131072 * 27.5 * 1024
    uneven = replace(FLASH, latent=Latent(768, 512, 192, 64, 128))
    assert context_bytes(uneven, given, 512, on_gpu=False) > 12 * 20 * 512 * 131072


def test_recorded_steps_count_where_the_engine_records_them() -> None:
    """On a GPU, for dense layers, for what is not int8; of int4 one row only."""
    dense, shape = LAYOUTS["glm4"], GLM4_9B
    wanted = Load("bf16", "bfloat16", 8192, 16)
    whole = graph_bytes(dense, shape, wanted)
    assert whole > 9 * shape.layers * GRAPH_LAYER_BYTES, "3 sizes of rows, 3 of widths"
    four = graph_bytes(dense, shape, replace(wanted, precision="int4"))
    assert 3 * shape.layers * GRAPH_LAYER_BYTES < four < whole
    assert graph_bytes(dense, shape, replace(wanted, precision="int8")) == 0
    assert graph_bytes(LAYOUTS["glm4_moe"], shape, wanted) == 0
    device = gpu(24)
    runtime = {term.name: term.bytes for term in estimate(dense, shape, wanted, device)}["runtime"]
    assert runtime == runtime_bytes(device, wanted) + whole
    part = {term.name: term.bytes for term in estimate(dense, shape, wanted, device, LayerSpan(0, 1))}["runtime"]
    assert part == runtime_bytes(device, wanted), "a model that is spread is not recorded"
