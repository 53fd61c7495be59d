"""Plans over several GPUs, with layers on the CPU, and within the host's memory."""

from __future__ import annotations

from dataclasses import replace

from app.contract.plan import Device, Plan, Rung, Text
from entrypoint.messages.sentence import sentence
from entrypoint.plan.footprint import host_bytes
from entrypoint.plan.inputs import FailedRung
from entrypoint.plan.planner import LEAST_CONTEXT, TARGET_CONTEXT, make_plan
from entrypoint.reasons.plan import FitsToo, RanOutBefore
from entrypoint.settings.settings import Settings
from entrypoint.state.app_config import device_map
from entrypoint.state.ledger import Entry, Ledger, failed_rungs, new_entry
from entrypoint.supervisor.engine_process import _engine_environment
from entrypoint.supervisor.recovery import Recovery
from tests.unit.planning import GIB, GLM4_9B, HOST, gpu, plan_inputs

LITTLE_RAM = replace(HOST, available_bytes=2 * GIB)


def chosen(plan: Plan) -> Rung:
    assert plan.chosen is not None, plan.refusal
    return plan.chosen


def cards(*free: float) -> tuple[Device, ...]:
    return tuple(gpu(gib, index=index) for index, gib in enumerate(free))


def sizes(rung: Rung) -> list[tuple[str, int]]:
    return [(placement.device, placement.layers) for placement in rung.placements]


def test_one_gpu_when_it_fits() -> None:
    plan = make_plan(plan_inputs(devices=cards(24, 24)))
    assert (chosen(plan).precision, chosen(plan).device, chosen(plan).placements) == ("bf16", "GPU-0000", ())
    assert not any(len(rung.devices) > 1 for rung in plan.rungs)


def test_a_higher_rung_on_two_gpus_comes_before_a_lower_on_one() -> None:
    plan = make_plan(plan_inputs(devices=cards(12, 12)))
    rung = chosen(plan)
    assert (rung.precision, rung.device) == ("bf16", "GPU-0000+GPU-0001")
    assert sizes(rung) == [("GPU-0000", 20), ("GPU-0001", 20)]
    assert [(r.precision, r.device, r.verdict) for r in plan.rungs][:3] == [
        ("bf16", "GPU-0000", "too_large"),
        ("bf16", "GPU-0000+GPU-0001", "chosen"),
        ("int8", "GPU-0000", "fits"),
    ]
    assert rung.reason.code == "highest_that_fits"
    assert rung.reason.values["devices"] == ["GPU-0000", "GPU-0001"]
    assert rung.reason.values["layers"] == [20, 20]


def test_layers_are_balanced_by_free_memory() -> None:
    rung = chosen(make_plan(plan_inputs(devices=cards(6, 18))))
    assert rung.placements[0].device == "GPU-0001", "the roomiest card comes first in a forward pass"
    shares = [placement.need_bytes / placement.free_bytes for placement in rung.placements]
    assert max(shares) - min(shares) < 0.12, "as even as whole layers, and the context that grew, allow"


def test_no_more_gpus_than_carry_it() -> None:
    assert chosen(make_plan(plan_inputs(devices=cards(8, 12, 11, 3)))).device == "GPU-0001+GPU-0002"
    assert chosen(make_plan(plan_inputs(devices=cards(8, 8, 8, 3)))).device == "GPU-0000+GPU-0001+GPU-0002"


def test_context_and_slots_grow_on_the_split() -> None:
    long = replace(GLM4_9B, context=131072)
    few, many = (chosen(make_plan(plan_inputs(long, devices=cards(gib, gib)))) for gib in (10.5, 11.5))
    assert few.precision == many.precision == "bf16"
    assert few.max_model_len == many.max_model_len == TARGET_CONTEXT
    assert 1 <= few.max_num_seqs < many.max_num_seqs < 16
    longer = chosen(make_plan(plan_inputs(long, devices=cards(18, 18))))
    assert (longer.max_num_seqs, longer.max_model_len > TARGET_CONTEXT) == (16, True)


def test_a_shorter_context_is_tried_on_all_gpus_together() -> None:
    rung = chosen(make_plan(plan_inputs(devices=cards(4.3, 4.3), host=LITTLE_RAM)))
    assert (rung.precision, rung.device) == ("int4", "GPU-0000+GPU-0001")
    assert LEAST_CONTEXT <= rung.max_model_len < TARGET_CONTEXT
    assert rung.reason.code == "fits_shorter"
    values = rung.reason.values
    assert (values["max_model_len"], values["target_model_len"]) == (rung.max_model_len, TARGET_CONTEXT)


def test_layers_on_the_cpu_come_before_the_cpu_alone() -> None:
    plan = make_plan(plan_inputs(devices=cards(4)))
    rung = chosen(plan)
    assert (rung.precision, rung.device, rung.max_model_len) == ("int4", "GPU-0000+cpu", TARGET_CONTEXT)
    cpu, card = rung.placements
    assert (cpu.device, card.device, cpu.first_layer) == ("cpu", "GPU-0000", 0)
    assert card.free_bytes - card.need_bytes < 200 * 2**20, "the card is filled"
    smaller = chosen(make_plan(plan_inputs(devices=cards(3))))
    assert smaller.placements[0].layers > cpu.layers


def test_a_required_gpu_may_be_helped_by_the_cpu() -> None:
    rung = chosen(make_plan(plan_inputs(devices=cards(4), settings=Settings(model="x", require_gpu=True))))
    assert rung.device == "GPU-0000+cpu"


def test_an_explicit_precision_is_kept_with_layers_on_the_cpu() -> None:
    rung = chosen(make_plan(plan_inputs(devices=cards(8), settings=Settings(model="x", precision="bf16"))))
    assert (rung.precision, rung.device) == ("bf16", "GPU-0000+cpu")


def test_an_explicit_dtype_is_tried_on_cards_that_differ() -> None:
    devices = (gpu(12, (8, 6)), gpu(11, (7, 5), index=1))
    plan = make_plan(plan_inputs(devices=devices, settings=Settings(model="x", precision="bf16")))
    assert (chosen(plan).precision, chosen(plan).device) == ("bf16", "GPU-0000+GPU-0001")
    rows = [(rung.device, rung.precision) for rung in plan.rungs]
    assert len(rows) == len(set(rows))


def test_what_cpu_and_gpu_compute_together() -> None:
    turing, old_cpu = gpu(4, (7, 5)), replace(HOST, cpu_bf16=False)  # it widens bf16 as it reads it
    assert chosen(make_plan(plan_inputs(devices=cards(4)))).compute_dtype == "bfloat16"
    assert chosen(make_plan(plan_inputs(devices=(turing,)))).compute_dtype == "float32"
    assert chosen(make_plan(plan_inputs(devices=cards(4), host=old_cpu))).compute_dtype == "bfloat16"
    together = chosen(make_plan(plan_inputs(devices=(gpu(12, (7, 5)), gpu(12, index=1)))))
    assert (together.precision, together.compute_dtype) == ("fp16", "float16")


def test_mig_instances_are_never_joined() -> None:
    instances = tuple(replace(gpu(12, index=0), uuid=f"MIG-{n}", parent="GPU-0000") for n in range(2))
    rung = chosen(make_plan(plan_inputs(devices=instances)))
    assert (rung.precision, rung.device) == ("int8", "MIG-0")
    small = tuple(replace(device, free_bytes=4 * GIB) for device in instances)
    assert chosen(make_plan(plan_inputs(devices=small))).device == "MIG-0+cpu"


def test_shared_memory_is_counted_once() -> None:
    unified = replace(gpu(0), free_bytes=None, total_bytes=None, unified=True)
    host = replace(HOST, available_bytes=16 * GIB)
    plan = make_plan(plan_inputs(devices=(unified,), host=host))
    rung = chosen(plan)
    assert (rung.device, rung.precision, rung.free_bytes, rung.host_need_bytes) == ("GPU-0000", "int8", 16 * GIB, 0)
    discrete = next(
        r
        for r in make_plan(plan_inputs(devices=cards(16), host=host)).rungs
        if r.precision == "bf16" and r.device != "cpu"
    )
    shared = next(r for r in plan.rungs if r.precision == "bf16" and r.device != "cpu")
    assert shared.need_bytes - discrete.need_bytes == host_bytes("bf16")
    assert not any(
        len(r.devices) > 1 for r in make_plan(plan_inputs(devices=(unified, gpu(4, index=1)), host=host)).rungs[:3]
    )


def test_a_card_that_cannot_be_used_is_passed_over() -> None:
    broken = replace(gpu(80), unusable=Text("broken", "坏了"))
    assert chosen(make_plan(plan_inputs(devices=(broken, gpu(24, index=1))))).device == "GPU-0001"


def test_cards_that_cannot_be_used_are_not_joined_with_the_cpu() -> None:
    broken = replace(gpu(80), unusable=Text("broken", "坏了"))
    plan = make_plan(plan_inputs(devices=(broken,)))
    assert chosen(plan).device == "cpu"
    assert {rung.device for rung in plan.rungs} == {"GPU-0000", "cpu"}
    assert all(len(rung.devices) == 1 for rung in plan.rungs)


def test_chinese_has_spaces_around_numbers_and_latin_words() -> None:
    pair = chosen(make_plan(plan_inputs(devices=cards(12, 12)))).reason.zh
    assert "分布在 2 张显卡上（" in pair
    helped = chosen(make_plan(plan_inputs(devices=cards(4, 4)))).reason.zh
    assert "分布在 2 张显卡和 CPU 上（" in helped
    assert sentence(FitsToo("bf16", ("GPU-0", "GPU-1"), False)).zh == "也放得下；已选择 2 张显卡"


def test_loading_needs_host_memory_too() -> None:
    host = replace(HOST, available_bytes=GIB // 2, limit_bytes=GIB)
    plan = make_plan(plan_inputs(devices=cards(24), host=host))
    assert plan.refusal is not None
    first = plan.rungs[0]
    assert (plan.refusal.why.code, first.reason.code) == ("cannot_load", "short_of_ram")
    assert plan.refusal.why.values["reason"]["limit"] == {"code": "container_limit", "limit_bytes": GIB}
    assert first.reason.values["need_bytes"] == host_bytes("bf16")
    assert first.reason.values["free_bytes"] == host.available_bytes
    assert (first.verdict, first.short_bytes, first.host_need_bytes) == ("too_large", 0, host_bytes("bf16"))
    enough = replace(host, available_bytes=host_bytes("bf16"))
    assert chosen(make_plan(plan_inputs(devices=cards(24), host=enough))).device == "GPU-0000"


def test_the_refusal_names_the_smallest_plan() -> None:
    plan = make_plan(plan_inputs(devices=cards(2.5, 2.5), host=LITTLE_RAM))
    assert plan.refusal is not None
    why = plan.refusal.why
    assert (why.code, why.values["precision"], why.values["max_model_len"]) == ("model_too_large", "int4", 2048)
    assert why.values["devices"] == ["GPU-0000", "GPU-0001", "cpu"]
    assert why.values["short_bytes"] > 0


def test_a_split_that_ran_out_of_memory_is_stepped_down_from() -> None:
    devices = cards(12, 12)
    first = chosen(make_plan(plan_inputs(devices=devices)))
    recovery = Recovery(automatic=True)
    plan = make_plan(plan_inputs(devices=devices))
    entry = new_entry(plan, first, 1.0, None, proved=False)
    assert (entry.device, entry.memory_bytes) == ("GPU-0000+GPU-0001", 160 * GIB)
    remembered = failed_rungs(Ledger((entry,)), plan)
    again = chosen(make_plan(plan_inputs(devices=devices, failed_rungs=remembered)))
    assert (again.precision, again.device) == ("int8", "GPU-0000")
    assert recovery.automatic
    other: Entry = replace(entry, memory_bytes=entry.memory_bytes - GIB)
    assert failed_rungs(Ledger((other,)), plan) == (), "other memory is another machine"


def test_a_rung_barred_on_one_gpu_is_tried_on_two() -> None:
    failed = (FailedRung(precision="bf16", devices=("GPU-0000",), why=RanOutBefore("bf16", GIB)),)
    rung = chosen(make_plan(plan_inputs(devices=cards(24, 20), failed_rungs=failed)))
    assert (rung.precision, rung.device) == ("bf16", "GPU-0000+GPU-0001")


def test_after_a_death_in_service_the_same_devices_whatever_is_free_elsewhere() -> None:
    inputs = plan_inputs(devices=cards(12, 12, 30), only=("bf16", ("GPU-0000", "GPU-0001")))
    assert chosen(make_plan(inputs)).device == "GPU-0000+GPU-0001"
    single = plan_inputs(devices=cards(20, 30), only=("bf16", ("GPU-0000",)))
    assert chosen(make_plan(single)).device == "GPU-0000"
    gone = plan_inputs(devices=cards(30), only=("bf16", ("GPU-0000", "GPU-0001")))
    assert chosen(make_plan(gone)).device == "GPU-0000", "where one is gone, the plan is made anew"


def test_the_device_map_is_written_out() -> None:
    rung = chosen(make_plan(plan_inputs(devices=cards(3, 4))))
    assert rung.device == "GPU-0000+GPU-0001+cpu"
    modules = device_map(rung)
    assert list(modules)[:2] == ["model.embed_tokens", "model.layers.0"]
    assert modules["model.embed_tokens"] == "cpu"
    assert modules["model.norm"] == modules["lm_head"] == "cuda:0", "the roomiest card is the first of the two"
    expected = {"cpu": "cpu", "GPU-0000": "cuda:0", "GPU-0001": "cuda:1"}
    for part in rung.placements:
        for layer in range(part.first_layer, part.first_layer + part.layers):
            assert modules[f"model.layers.{layer}"] == expected[part.device]
    assert len(modules) == GLM4_9B.layers + 3
    environment = _engine_environment(rung)
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-0000,GPU-0001"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert device_map(chosen(make_plan(plan_inputs(devices=cards(80))))) == {"": "cuda:0"}
    assert device_map(chosen(make_plan(plan_inputs()))) == {"": "cpu"}
