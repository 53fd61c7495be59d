"""A model on the CPU leaves memory to the rest of the machine, unless the settings say otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.contract.limits import MOST_CPU_SLOTS
from app.contract.plan import Origin, Rung
from entrypoint.plan.planner import TARGET_CONTEXT, make_plan
from entrypoint.plan.verdicts import SMALL_CACHE_BYTES
from entrypoint.settings.settings import Settings
from tests.unit.planning import GIB, GLM4_9B, HOST, SMALL, gpu, plan_inputs

LONG = replace(GLM4_9B, context=131072)
WIDE_CACHE = replace(GLM4_9B, kv_heads=32, context=131072)
"""8192 tokens take 5.4 GB of cache, a third of the weights in bf16."""


def planned(shape: Any, **settings: Any) -> tuple[Rung, dict[str, Origin]]:
    plan = make_plan(plan_inputs(shape, settings=Settings(model="x", **settings)))
    assert plan.chosen is not None
    assert plan.chosen.device == "cpu"
    return plan.chosen, {origin.name: origin for origin in plan.origins}


def sizes(rung: Rung) -> tuple[int, int]:
    """Cache and weights."""
    terms = {term.name: term.bytes for term in rung.terms}
    return terms["kv_cache"], terms["weights"]


def test_four_slots_and_the_setting_that_raises_them() -> None:
    rung, origins = planned(SMALL)
    assert rung.max_num_seqs == MOST_CPU_SLOTS
    slots = origins["GLM_MAX_NUM_SEQS"]
    assert (slots.kind, slots.why.code) == ("default", "cpu_slot_limit")
    assert slots.why.values == {"max_num_seqs": MOST_CPU_SLOTS, "slot_bytes": rung.slot_bytes}
    assert "GLM_MAX_NUM_SEQS" in slots.why.en
    assert "GLM_MAX_NUM_SEQS" in slots.why.zh


def test_a_longer_context_ends_where_the_cache_would_exceed_the_weights() -> None:
    rung, origins = planned(LONG)
    cache, weights = sizes(rung)
    assert TARGET_CONTEXT < rung.max_model_len < LONG.context
    assert cache <= weights < cache * (rung.max_model_len + 256) // rung.max_model_len
    context = origins["GLM_MAX_MODEL_LEN"]
    assert (context.kind, context.why.code) == ("default", "cache_within_weights")
    assert context.why.values == {"setting": "GLM_MAX_MODEL_LEN", "cache_bytes": cache, "weights_bytes": weights}


def test_slots_end_where_the_cache_would_exceed_the_weights() -> None:
    rung, origins = planned(WIDE_CACHE)
    cache, weights = sizes(rung)
    assert (1 < rung.max_num_seqs < MOST_CPU_SLOTS, rung.max_model_len) == (True, TARGET_CONTEXT)
    assert cache <= weights < cache + rung.slot_bytes
    assert origins["GLM_MAX_NUM_SEQS"].why.code == "cache_within_weights"
    assert origins["GLM_MAX_NUM_SEQS"].why.values["setting"] == "GLM_MAX_NUM_SEQS"


def test_one_request_keeps_its_context_whatever_its_cache_takes() -> None:
    rung, _ = planned(replace(WIDE_CACHE, kv_heads=32, layers=4, hidden=512, heads=32, intermediate=1024))
    cache, weights = sizes(rung)
    assert cache > weights
    assert (rung.max_num_seqs, rung.max_model_len) == (1, TARGET_CONTEXT)


def test_a_small_cache_may_exceed_the_weights() -> None:
    tiny = replace(SMALL, layers=2, hidden=256, heads=4, intermediate=512, vocab=512, context=2048)
    rung, _ = planned(tiny)
    cache, weights = sizes(rung)
    assert weights < cache < SMALL_CACHE_BYTES
    assert rung.max_num_seqs == MOST_CPU_SLOTS


@pytest.mark.parametrize("slots", [5, 16, 40])
def test_slots_that_are_set_are_kept(slots: int) -> None:
    rung, _ = planned(SMALL, max_num_seqs=slots)
    assert rung.max_num_seqs == slots


def test_a_context_that_is_set_is_kept() -> None:
    rung, _ = planned(WIDE_CACHE, max_model_len=65536)
    cache, weights = sizes(rung)
    assert (rung.max_num_seqs, rung.max_model_len, cache > weights) == (1, 65536, True)


def test_cards_are_given_what_they_hold() -> None:
    plan = make_plan(plan_inputs(LONG, devices=(gpu(60),)))
    assert plan.chosen is not None
    cache, weights = sizes(plan.chosen)
    assert (plan.chosen.max_num_seqs, cache > weights) == (16, True)


def test_a_refusal_offers_as_many_slots_as_fit() -> None:
    options = Settings(model="x", precision="bf16", max_num_seqs=64)
    host = replace(HOST, available_bytes=8 * GIB)
    plan = make_plan(plan_inputs(replace(SMALL, kv_heads=16), settings=options, host=host))
    assert plan.refusal is not None
    name, _, slots = (plan.refusal.env_line or "").partition("=")
    assert name == "GLM_MAX_NUM_SEQS"
    assert int(slots) > MOST_CPU_SLOTS
