"""What the plan says of a request's speed, from bandwidths that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.contract.plan import Plan, Rung, SpeedEstimate
from app.layouts.registry import LAYOUTS
from app.layouts.shape import Experts
from entrypoint.plan.footprint import LayerSpan, Load, weights_bytes
from entrypoint.plan.inputs import ReachedSpeed
from entrypoint.plan.planner import make_plan
from entrypoint.plan.speed import CPU_SHARES, GPU_SHARE, ReachedShare, ReadPart, speed_estimate, token_bytes
from tests.unit.planning import GIB, GLM4_9B, HOST, SMALL, gpu, plan_inputs

GB = 10**9
BF16 = Load("bf16", "bfloat16", 1, 1)
WHOLE = LayerSpan(0, SMALL.layers)
EMBEDDING = 2 * SMALL.vocab * SMALL.hidden
SHARE = ReachedShare(0.5, 0.8)


def chosen(plan: Plan) -> Rung:
    assert plan.chosen is not None
    return plan.chosen


def test_a_token_reads_every_weight_but_the_embedding() -> None:
    layout = LAYOUTS["glm4"]
    every = weights_bytes(layout, SMALL, BF16)
    assert token_bytes(layout, SMALL, BF16, WHOLE) == every - EMBEDDING
    tied = replace(SMALL, tied=True)
    assert token_bytes(layout, tied, BF16, WHOLE) == weights_bytes(layout, tied, BF16) == every - EMBEDDING
    halves = LayerSpan(0, 6), LayerSpan(6, SMALL.layers - 6)
    assert sum(token_bytes(layout, SMALL, BF16, half) for half in halves) == every - EMBEDDING


def test_a_token_reads_the_experts_that_it_passes_through() -> None:
    layout = LAYOUTS["glm4_moe"]
    few = Experts(count=16, per_token=2, intermediate=512, shared=1, dense_layers=1)
    shape = replace(SMALL, experts=few)
    experts = 2 * (SMALL.layers - 1) * few.count * 3 * SMALL.hidden * few.intermediate
    all_read = weights_bytes(layout, shape, BF16) - EMBEDDING
    assert token_bytes(layout, shape, BF16, WHOLE) == all_read - experts * 14 // 16


def test_a_range_of_the_time_that_one_reading_takes() -> None:
    assert speed_estimate([ReadPart(GB, 10 * GB, SHARE)]) == SpeedEstimate(
        low_tokens_per_second=5.0, high_tokens_per_second=8.0, read_bytes=GB, memory_bytes_per_second=10 * GB
    )


def test_devices_work_one_after_the_other() -> None:
    both = speed_estimate([ReadPart(GB, 10 * GB, SHARE), ReadPart(3 * GB, 100 * GB, ReachedShare(0.5, 1.0))])
    assert both is not None
    assert both.low_tokens_per_second == pytest.approx(1 / (0.2 + 0.06))
    assert both.high_tokens_per_second == pytest.approx(1 / (0.125 + 0.03))
    assert both.memory_bytes_per_second == pytest.approx(4 * GB / 0.13, rel=1e-6)


def test_weights_that_are_read_at_once_are_no_bound() -> None:
    assert speed_estimate([ReadPart(GB // 1000, 10 * GB, SHARE)]) is None


def test_a_rung_on_the_cpu_has_the_speed_of_the_host() -> None:
    host = replace(HOST, memory_bytes_per_second=40 * GB)
    rung = chosen(make_plan(plan_inputs(host=host)))
    read = token_bytes(LAYOUTS["glm4"], GLM4_9B, Load(rung.precision, "bfloat16", 1, 1), LayerSpan(0, GLM4_9B.layers))
    assert rung.speed is not None
    assert (rung.speed.read_bytes, rung.speed.memory_bytes_per_second) == (read, pytest.approx(40 * GB, rel=1e-6))
    share = CPU_SHARES[rung.precision]
    assert rung.speed.low_tokens_per_second == pytest.approx(40 * GB / read * share.low)
    assert rung.speed.high_tokens_per_second == pytest.approx(40 * GB / read * share.high)


def test_a_rung_on_a_card_has_the_speed_of_the_card() -> None:
    card = replace(gpu(24), memory_bytes_per_second=936 * GB)
    rung = chosen(make_plan(plan_inputs(devices=(card,))))
    assert rung.speed is not None
    assert rung.speed.high_tokens_per_second == pytest.approx(936 * GB / rung.speed.read_bytes * GPU_SHARE.high)


def test_layers_on_both_need_both_speeds() -> None:
    card, host = replace(gpu(4), memory_bytes_per_second=360 * GB), replace(HOST, memory_bytes_per_second=40 * GB)
    both = chosen(make_plan(plan_inputs(devices=(card,), host=host)))
    assert len(both.devices) == 2
    assert both.speed is not None
    assert 40 * GB < both.speed.memory_bytes_per_second < 360 * GB
    assert chosen(make_plan(plan_inputs(devices=(card,)))).speed is None


def test_without_a_measurement_there_is_no_estimate() -> None:
    assert {rung.speed for rung in make_plan(plan_inputs(devices=(gpu(80),))).rungs} == {None}


def test_what_was_reached_stands_with_its_rung() -> None:
    reached = (ReachedSpeed("int8", ("cpu",), 9.5), ReachedSpeed("int8", ("GPU-0000",), 55.0))
    rungs = make_plan(plan_inputs(devices=(gpu(12),), reached=reached)).rungs
    speeds = {(rung.precision, rung.device): rung.reached_tokens_per_second for rung in rungs}
    assert speeds["int8", "GPU-0000"] == 55.0
    assert {speed for place, speed in speeds.items() if place[0] != "int8"} == {None}


def test_a_slot_costs_its_cache() -> None:
    rung = chosen(make_plan(plan_inputs(SMALL, host=replace(HOST, available_bytes=8 * GIB))))
    cache = next(term.bytes for term in rung.terms if term.name == "kv_cache")
    assert rung.max_num_seqs > 1
    assert rung.slot_bytes * rung.max_num_seqs == cache
