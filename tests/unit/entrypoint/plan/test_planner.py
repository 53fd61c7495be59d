from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract.limits import LARGEST_MAX_NUM_SEQS, MOST_SLOTS, QUEUE_LIMIT, THREADS_BESIDE_STREAMS
from app.contract.plan import Device, Plan, Precision, Rung, Text
from app.engine.serving.server import CONNECTIONS
from entrypoint.machine.torch_build import TorchBuild
from entrypoint.plan.inputs import FailedRung, PlanInputs
from entrypoint.plan.planner import TARGET_CONTEXT, make_plan
from entrypoint.reasons.plan import RanOutBefore
from entrypoint.settings.settings import Settings, SettingsError
from tests.unit.planning import GIB, GLM4_9B, HOST, SMALL, gpu, plan_inputs

NO_RAM = replace(HOST, available_bytes=2 * GIB)
ORDER = ["fp32", "bf16", "fp16", "int8", "int4"]


def chosen(plan: Plan) -> Rung:
    assert plan.chosen is not None
    return plan.chosen


@pytest.mark.parametrize(
    ("free", "precision"), [(80, "bf16"), (24, "bf16"), (16, "int8"), (12, "int8"), (10, "int4"), (8, "int4")]
)
def test_the_highest_precision_that_fits_the_card(free: float, precision: str) -> None:
    rung = chosen(make_plan(plan_inputs(devices=(gpu(free),))))
    assert (rung.precision, rung.device) == (precision, "GPU-0000")


def test_an_old_card_computes_in_fp16() -> None:
    rung = chosen(make_plan(plan_inputs(devices=(gpu(24, (7, 5)),))))
    assert (rung.precision, rung.compute_dtype) == ("fp16", "float16")
    assert chosen(make_plan(plan_inputs(devices=(gpu(12, (7, 5)),)))).compute_dtype == "float16"


def test_the_card_with_the_most_free_memory_is_taken() -> None:
    plan = make_plan(plan_inputs(devices=(gpu(10, index=0), gpu(40, index=1))))
    assert chosen(plan).device == "GPU-0001"


def test_the_cpu_serves_where_the_card_is_too_small() -> None:
    rung = chosen(make_plan(plan_inputs(devices=(gpu(1),))))
    assert (rung.device, rung.precision) == ("cpu", "bf16")


@pytest.mark.parametrize("native", [True, False])
def test_every_cpu_is_given_16_bits(native: bool) -> None:
    plan = make_plan(plan_inputs(SMALL, host=replace(HOST, cpu_bf16=native)))
    assert [(rung.precision, rung.compute_dtype) for rung in plan.rungs] == [
        (precision, "bfloat16") for precision in ("bf16", "int8", "int4")
    ]


def test_fp32_stays_a_setting() -> None:
    rung = chosen(make_plan(plan_inputs(SMALL, settings=Settings(model="x", precision="fp32"))))
    assert (rung.precision, rung.compute_dtype) == ("fp32", "float32")


def test_context_shrinks_at_the_lowest_rung_before_the_cpu() -> None:
    full = make_plan(plan_inputs(devices=(gpu(80),), settings=Settings(model="x", precision="int4")))
    eight_k = next(r for r in make_plan(plan_inputs(devices=(gpu(5),))).rungs if r.precision == "int4")
    free = (eight_k.need_bytes - 1) / GIB
    rung = chosen(make_plan(plan_inputs(devices=(gpu(free),))))
    assert (rung.precision, rung.device) == ("int4", "GPU-0000")
    assert 2048 <= rung.max_model_len < 8192
    assert rung.need_bytes <= rung.free_bytes
    assert chosen(full).max_model_len == GLM4_9B.context


def test_an_explicit_precision_is_kept_or_refused_with_the_line_to_change() -> None:
    options = Settings(model="x", precision="bf16")
    plan = make_plan(plan_inputs(settings=options, devices=(gpu(12),), host=NO_RAM))
    assert plan.chosen is None
    assert plan.refusal is not None
    assert plan.refusal.env_line == "GLM_PRECISION=auto"
    remedy, why = plan.refusal.remedy, plan.refusal.why
    assert (remedy.code, remedy.values["precision"]) == ("setting_makes_it_fit", "int8")
    assert (why.code, why.values["short_bytes"] > 0) == ("model_too_large", True)
    relaxed = make_plan(plan_inputs(devices=(gpu(12),), host=NO_RAM))
    assert chosen(relaxed).precision == "int8"


def test_an_explicit_context_is_kept_or_refused_with_the_line_to_change() -> None:
    options = Settings(model="x", max_model_len=32768)
    plan = make_plan(plan_inputs(settings=options, devices=(gpu(8),), host=NO_RAM))
    assert plan.refusal is not None
    name, _, tokens = (plan.refusal.env_line or "").partition("=")
    assert name == "GLM_MAX_MODEL_LEN"
    assert 8192 <= int(tokens) < 32768
    fewer = make_plan(plan_inputs(settings=replace(options, max_model_len=int(tokens)), devices=(gpu(8),), host=NO_RAM))
    assert chosen(fewer).max_model_len == int(tokens)


def test_what_is_left_buys_slots_before_a_longer_context() -> None:
    long = replace(GLM4_9B, context=131072)
    few, more, most = (chosen(make_plan(plan_inputs(long, devices=(gpu(free),)))) for free in (20, 22, 60))
    assert few.precision == more.precision == most.precision == "bf16"
    assert few.max_model_len == more.max_model_len == TARGET_CONTEXT
    assert 1 < few.max_num_seqs < more.max_num_seqs < MOST_SLOTS
    assert (most.max_num_seqs, most.max_model_len > TARGET_CONTEXT) == (MOST_SLOTS, True)


@pytest.mark.parametrize("slots", [1, 5, 40])
def test_an_explicit_number_of_slots_is_kept(slots: int) -> None:
    options = Settings(model="x", max_num_seqs=slots)
    rung = chosen(make_plan(plan_inputs(settings=options, devices=(gpu(80),))))
    assert (rung.precision, rung.max_num_seqs) == ("bf16", slots)
    lower = chosen(make_plan(plan_inputs(settings=replace(options, max_num_seqs=40), devices=(gpu(22),))))
    assert (lower.precision, lower.max_num_seqs) == ("int4", 40), "what was set comes before the precision"


def test_explicit_slots_that_do_not_fit_are_refused_with_the_line_to_change() -> None:
    options = Settings(model="x", max_num_seqs=40)
    plan = make_plan(plan_inputs(settings=options, devices=(gpu(8),), host=NO_RAM))
    assert plan.refusal is not None
    why, remedy = plan.refusal.why, plan.refusal.remedy
    assert (why.values["max_model_len"], why.values["max_num_seqs"]) == (2048, 40)
    assert "2048 tokens for each of 40 requests) needs" in why.en
    assert "上下文 2048 × 40）也要" in why.zh
    assert (remedy.code, remedy.values["setting"]) == ("smaller_setting_fits", "GLM_MAX_NUM_SEQS")
    name, _, slots = (plan.refusal.env_line or "").partition("=")
    assert (name, 1 <= int(slots) < 40) == ("GLM_MAX_NUM_SEQS", True)
    fewer = make_plan(plan_inputs(settings=replace(options, max_num_seqs=int(slots)), devices=(gpu(8),), host=NO_RAM))
    assert chosen(fewer).max_num_seqs == int(slots)


def test_every_slot_has_a_thread_and_a_connection() -> None:
    assert QUEUE_LIMIT + LARGEST_MAX_NUM_SEQS + THREADS_BESIDE_STREAMS <= CONNECTIONS


def test_nothing_fits_at_all() -> None:
    plan = make_plan(plan_inputs(devices=(gpu(3),), host=NO_RAM))
    assert plan.chosen is None
    assert plan.refusal is not None
    assert plan.refusal.env_line == "GLM_MODEL=demo"
    assert {rung.verdict for rung in plan.rungs} == {"too_large"}


def test_a_container_limit_that_is_too_small_is_named() -> None:
    host = replace(HOST, available_bytes=2 * GIB, limit_bytes=3 * GIB)
    refusal = make_plan(plan_inputs(host=host)).refusal
    assert refusal is not None
    assert refusal.why.code == "model_too_large"
    assert refusal.why.values["limit"] == {"code": "container_limit", "limit_bytes": 3 * GIB}


def test_a_required_gpu_that_is_not_seen() -> None:
    note = Text("No driver.", "没有驱动。")
    plan = make_plan(plan_inputs(settings=Settings(require_gpu=True), host=replace(HOST, gpu_note=note)))
    assert plan.refusal is not None
    assert plan.refusal.why.code == "no_gpu_seen"
    assert plan.refusal.why.values["note"]["en"] == "No driver."
    assert plan.refusal.env_line == "GLM_REQUIRE_GPU=0"


def test_a_required_gpu_keeps_the_cpu_out() -> None:
    plan = make_plan(plan_inputs(settings=Settings(require_gpu=True), devices=(gpu(1),)))
    assert plan.refusal is not None
    assert plan.refusal.env_line == "GLM_REQUIRE_GPU=0"
    assert all(rung.device != "cpu" for rung in plan.rungs)


@pytest.mark.parametrize(
    ("torch", "capability", "says"),
    [
        (TorchBuild("2.13.0+cpu", None), (8, 6), "CPU build"),
        (TorchBuild("2.13.0", "13.0", ("sm_75", "sm_90")), (7, 0), "built for 7.5, 9.0"),
    ],
)
def test_a_card_that_this_torch_cannot_use(torch: TorchBuild, capability: tuple[int, int], says: str) -> None:
    plan = make_plan(plan_inputs(devices=(gpu(80, capability),), torch=torch))
    assert chosen(plan).device == "cpu"
    gpu_rungs = [rung for rung in plan.rungs if rung.device != "cpu"]
    assert {(rung.verdict, rung.reason.code) for rung in gpu_rungs} == {("unsupported", "gpu_unusable")}
    assert all(says in rung.reason.en for rung in gpu_rungs)


def test_a_rung_that_failed_here_is_not_tried_again_unless_it_is_set() -> None:
    failed = (FailedRung(precision="bf16", devices=("GPU-0000",), why=RanOutBefore("bf16", GIB)),)
    rung = chosen(make_plan(plan_inputs(devices=(gpu(80),), failed_rungs=failed)))
    assert rung.precision == "int8"
    options = Settings(model="x", precision="bf16")
    assert chosen(make_plan(plan_inputs(settings=options, devices=(gpu(80),), failed_rungs=failed))).precision == "bf16"


def test_after_a_death_in_service_only_the_same_rung() -> None:
    plan = make_plan(plan_inputs(devices=(gpu(80),), only=("int8", ("GPU-0000",))))
    assert chosen(plan).precision == "int8"
    assert make_plan(plan_inputs(devices=(gpu(8),), only=("bf16", ("GPU-0000",)))).chosen is None


def test_out_of_the_models_range() -> None:
    with pytest.raises(SettingsError, match="GLM_MAX_MODEL_LEN=32769: should be at most 32768"):
        make_plan(plan_inputs(settings=Settings(max_model_len=32769)))


def test_origins_say_where_each_value_comes_from() -> None:
    plan = make_plan(plan_inputs(settings=Settings(model="x", precision="int8"), devices=(gpu(80),)))
    kinds = {origin.name: origin.kind for origin in plan.origins}
    assert kinds == {
        "GLM_MODEL": "set",
        "GLM_PRECISION": "set",
        "device": "measured",
        "GLM_MAX_MODEL_LEN": "measured",
        "GLM_MAX_NUM_SEQS": "measured",
        "prefill_chunk": "default",
    }


def codes(inputs: PlanInputs) -> dict[str, str]:
    return {origin.name: origin.why.code for origin in make_plan(inputs).origins}


@pytest.mark.parametrize(
    ("devices", "context", "slots"),
    [
        ((gpu(20),), "default_context", "slots_from_memory"),
        ((gpu(60),), "context_from_memory", "slot_limit"),
        ((gpu(80),), "model_limit", "slot_limit"),
        ((gpu(7.5),), "context_from_memory", "slots_from_memory"),
    ],
)
def test_context_and_slots_say_where_they_come_from(devices: tuple[Device, ...], context: str, slots: str) -> None:
    inputs = plan_inputs(replace(GLM4_9B, context=65536), devices=devices, host=NO_RAM)
    found = codes(inputs)
    assert (found["GLM_MAX_MODEL_LEN"], found["GLM_MAX_NUM_SEQS"]) == (context, slots)
    rung = chosen(make_plan(inputs))
    values = next(origin.why.values for origin in make_plan(inputs).origins if origin.name == "GLM_MAX_NUM_SEQS")
    assert values.get("max_num_seqs", rung.max_num_seqs) == rung.max_num_seqs
    assert values.get("free_bytes", rung.free_bytes) == rung.free_bytes


def test_layers_on_the_cpu_leave_one_slot_and_say_so() -> None:
    inputs = plan_inputs(devices=(gpu(4),))
    assert chosen(make_plan(inputs)).max_num_seqs == 1
    assert codes(inputs)["GLM_MAX_NUM_SEQS"] == "slots_keep_gpu_layers"


memory = st.integers(min_value=GIB // 4, max_value=100 * GIB)
precisions = st.sampled_from([None, "fp32", "bf16", "fp16", "int8", "int4"])


@settings(max_examples=150, deadline=None)
@given(free=memory, ram=memory, precision=precisions, context=st.sampled_from([None, 2048, 8192, 32768]))
def test_a_chosen_plan_always_fits_and_keeps_what_was_set(
    free: int, ram: int, precision: Precision | None, context: int | None
) -> None:
    options = Settings(model="x", precision=precision, max_model_len=context)
    host = replace(HOST, available_bytes=ram)
    plan = make_plan(plan_inputs(settings=options, devices=(replace(gpu(1), free_bytes=free),), host=host))
    assert (plan.chosen is None) != (plan.refusal is None)
    for rung in plan.rungs:
        assert sum(term.bytes for term in rung.terms) == rung.need_bytes
        assert all(term.bytes >= 0 for term in rung.terms)
    assert [rung for rung in plan.rungs if rung.verdict == "chosen"] == ([plan.chosen] if plan.chosen else [])
    if plan.chosen:
        assert plan.chosen.need_bytes <= plan.chosen.free_bytes
        assert precision in (None, plan.chosen.precision)
        assert context in (None, plan.chosen.max_model_len)
        assert plan.chosen.max_model_len <= GLM4_9B.context


@settings(max_examples=150, deadline=None)
@given(free=memory, more=st.integers(min_value=0, max_value=40 * GIB))
def test_more_memory_never_gives_less(free: int, more: int) -> None:
    def at(free_bytes: int) -> Rung | None:
        device = replace(gpu(1), free_bytes=free_bytes)
        return make_plan(plan_inputs(devices=(device,), host=NO_RAM)).chosen

    small, large = at(free), at(free + more)
    if small is None:
        return
    assert large is not None
    assert ORDER.index(large.precision) <= ORDER.index(small.precision)
    if large.precision == small.precision:
        assert large.max_model_len >= small.max_model_len
        assert large.max_num_seqs >= small.max_num_seqs
