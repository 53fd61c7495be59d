"""What holds of every plan: all families, up to four GPUs, any memory."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.contract.plan import Plan, Precision, Rung
from app.layouts.registry import LAYOUTS
from app.layouts.shape import Experts, Latent, Shape
from entrypoint.plan.planner import TARGET_CONTEXT, make_plan
from entrypoint.settings.settings import Settings
from tests.unit.planning import GIB, GLM4_9B, HOST, SMALL, gpu, plan_inputs

LITE = Shape(
    layers=12,
    hidden=2048,
    heads=20,
    kv_heads=20,
    head_dim=256,
    intermediate=10240,
    vocab=151552,
    context=65536,
    attention_bias=False,
    tied=False,
    experts=Experts(count=16, per_token=4, intermediate=1536, shared=1, dense_layers=1),
    latent=Latent(768, 512, 192, 64, 256),
)
AIR = Shape(
    layers=10,
    hidden=4096,
    heads=96,
    kv_heads=8,
    head_dim=128,
    intermediate=10944,
    vocab=151552,
    context=131072,
    attention_bias=True,
    tied=False,
    experts=Experts(count=16, per_token=8, intermediate=1408, shared=1, dense_layers=1),
)
MODELS = [
    ("glm4", GLM4_9B),
    ("glm", replace(SMALL, tied=True)),
    ("chatglm", replace(GLM4_9B, layers=28, context=8192)),
    ("glm4_moe", AIR),
    ("glm4_moe_lite", LITE),
]
models = st.sampled_from(MODELS)
free_gib = st.floats(0, 60, allow_nan=False)
gpus = st.lists(st.tuples(free_gib, st.sampled_from([(7, 5), (8, 6), (9, 0), (12, 0)])), max_size=4)
precisions = st.sampled_from([None, None, "bf16", "fp16", "int8", "int4"])
NATIVE = ("fp32", "bf16", "fp16")
ranks: dict[str, int] = {"fp32": 0, "bf16": 0, "fp16": 0, "int8": 1, "int4": 2}


def plan_for(
    model: tuple[str, Shape],
    devices: list[tuple[float, tuple[int, int]]],
    ram_gib: float,
    precision: Precision | None = None,
    context: int | None = None,
    slots: int | None = None,
) -> Plan:
    layout, shape = model
    options = Settings(model="x", precision=precision, max_model_len=context, max_num_seqs=slots)
    host = replace(HOST, available_bytes=int(ram_gib * GIB))
    given = tuple(gpu(gib, capability, index) for index, (gib, capability) in enumerate(devices))
    return make_plan(plan_inputs(shape, options, layout=LAYOUTS[layout], devices=given, host=host))


@settings(max_examples=150, deadline=None)
@given(
    model=models,
    devices=gpus,
    ram=free_gib,
    precision=precisions,
    context=st.sampled_from([None, None, 1024, 8192]),
    slots=st.sampled_from([None, 1, 3]),
)
def test_every_rung_adds_up_and_the_chosen_one_fits_each_device(
    model: tuple[str, Shape],
    devices: list[tuple[float, tuple[int, int]]],
    ram: float,
    precision: Precision | None,
    context: int | None,
    slots: int | None,
) -> None:
    plan = plan_for(model, devices, ram, precision, context, slots)
    assert (plan.chosen is None) != (plan.refusal is None)
    assert len({(rung.device, rung.precision) for rung in plan.rungs}) == len(plan.rungs)
    assert [rung for rung in plan.rungs if rung.verdict == "chosen"] == ([plan.chosen] if plan.chosen else [])
    for rung in plan.rungs:
        assert sum(term.bytes for term in rung.terms) == rung.need_bytes
        assert all(term.bytes >= 0 for term in rung.terms)
        if rung.placements:
            assert sum(part.need_bytes for part in rung.placements) == rung.need_bytes
            assert sum(part.free_bytes for part in rung.placements) == rung.free_bytes
            assert sorted(part.device for part in rung.placements) == sorted(rung.devices)
            layers = [n for part in rung.placements for n in range(part.first_layer, part.first_layer + part.layers)]
            assert layers == list(range(model[1].layers))
            assert all(part.layers for part in rung.placements)
    if taken := plan.chosen:
        assert taken.short_bytes == 0
        for part in taken.placements or (taken,):
            assert part.need_bytes <= part.free_bytes
        assert taken.host_need_bytes <= plan.host.available_bytes
        assert precision in (None, taken.precision)
        assert context in (None, taken.max_model_len)
        assert slots in (None, taken.max_num_seqs)
        assert taken.max_model_len <= model[1].context


def stage(rung: Rung) -> int:
    """0 on GPUs, 1 with layers on the CPU, 2 on the CPU alone."""
    return 2 if rung.devices == ("cpu",) else 1 if rung.uses_cpu else 0


def cpu_layers(rung: Rung) -> int:
    """Layers on the CPU of a rung that is spread."""
    return sum(placement.layers for placement in rung.placements if placement.device == "cpu")


@settings(max_examples=200, deadline=None)
@given(
    model=models,
    devices=gpus,
    ram=free_gib,
    more=st.floats(0, 30, allow_nan=False),
    where=st.integers(0, 4),
)
# An older card that becomes the largest; one that takes layers from the CPU.
@example(MODELS[0], [(1.92, (9, 0)), (0.06, (7, 5)), (3.69, (9, 0)), (3.39, (7, 5))], 7.37, 0.6, 3)
@example(MODELS[3], [(0.55, (8, 6)), (0.73, (7, 5)), (4.74, (12, 0)), (0.79, (8, 6))], 55.5, 3.0, 0)
def test_more_memory_anywhere_never_gives_less(
    model: tuple[str, Shape], devices: list[tuple[float, tuple[int, int]]], ram: float, more: float, where: int
) -> None:
    """GPUs before the CPU, then the rung, then fewer layers on the CPU, fewer GPUs, slots, context (design)."""
    grown, more_ram = list(devices), ram
    if where < len(devices):
        grown[where] = (devices[where][0] + more, devices[where][1])
    else:
        more_ram = ram + more
    small, large = plan_for(model, devices, ram).chosen, plan_for(model, grown, more_ram).chosen
    if small is None:
        return
    assert large is not None
    assert stage(large) <= stage(small)
    if stage(large) < stage(small):
        return
    assert ranks[large.precision] <= ranks[small.precision]
    if ranks[large.precision] < ranks[small.precision]:
        return
    assert large.max_model_len >= min(small.max_model_len, TARGET_CONTEXT)
    if len(large.devices) == len(small.devices):
        assert large.max_num_seqs >= small.max_num_seqs
        assert large.max_model_len >= small.max_model_len
    elif small.max_model_len >= TARGET_CONTEXT:
        assert len(large.devices) < len(small.devices) or cpu_layers(large) < cpu_layers(small), "no more than before"
