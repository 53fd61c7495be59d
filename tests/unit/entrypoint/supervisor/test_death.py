from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from app.contract.exits import ENGINE_BAD_CHECKPOINT, ENGINE_OUT_OF_MEMORY, ENGINE_SELF_TEST
from app.contract.plan import Plan, Rung
from app.contract.status import EngineDown, Phase
from entrypoint.messages.sentence import text
from entrypoint.plan.planner import make_plan
from entrypoint.reasons.machine import ContainerLostGpu
from entrypoint.reasons.plan import RanOutBefore
from entrypoint.settings.settings import Settings
from entrypoint.state import ledger
from entrypoint.supervisor.death import Evidence, certify, final_refusal
from entrypoint.supervisor.recovery import MEMORY_WAIT_SECONDS, Recovery, recovery_action
from tests.unit.planning import GIB, SMALL, gpu, plan_inputs

KILLED = Evidence(
    at=1.0,
    phase="ready",
    exit_code=-signal.SIGKILL,
    account=None,
    oom_kills=1,
    limit_bytes=2 * GIB,
    peak_bytes=2 * GIB,
)


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (KILLED, "killed_by_kernel_oom"),
        (replace(KILLED, oom_kills=0), "killed_by_signal"),
        (replace(KILLED, exit_code=-signal.SIGSEGV), "killed_by_signal"),
        (replace(KILLED, exit_code=ENGINE_OUT_OF_MEMORY), "out_of_memory"),
        (replace(KILLED, exit_code=ENGINE_BAD_CHECKPOINT), "bad_checkpoint"),
        (replace(KILLED, exit_code=ENGINE_SELF_TEST), "self_test"),
        (replace(KILLED, exit_code=1), "crashed"),
        (replace(KILLED, exit_code=1, account=EngineDown("out_of_memory", "CUDA")), "out_of_memory"),
        (replace(KILLED, silent_seconds=60.4), "hung"),
    ],
)
def test_the_killer_is_named(evidence: Evidence, cause: str) -> None:
    assert certify(evidence).cause == cause


def test_a_kernel_kill_tells_limit_and_peak() -> None:
    death = certify(KILLED)
    values = {"phase": "ready", "limit_bytes": 2 * GIB, "peak_bytes": 2 * GIB}
    assert (death.why.code, death.why.values) == ("killed_for_memory", values)
    assert "limit 2.00 GiB, peak 2.00 GiB" in death.why.en
    assert "上限 2.00 GiB，峰值 2.00 GiB" in death.why.zh
    assert death.remedy is not None and death.remedy.code == "give_more_memory"


def test_a_hung_engine_is_told_with_its_silence_and_started_again() -> None:
    death = certify(replace(KILLED, silent_seconds=60.4))
    assert (death.why.code, death.why.values) == ("engine_hung", {"phase": "ready", "seconds": 60.4})
    assert death.remedy is not None and death.remedy.code == "restarts_by_itself"
    assert recovery_action(death, True, 0, 1).kind == "same"


def test_another_signal_is_not_blamed_on_memory() -> None:
    why = certify(replace(KILLED, oom_kills=0)).why
    assert (why.code, why.values) == ("killed_by_signal", {"phase": "ready", "signal": "SIGKILL"})


@pytest.mark.parametrize(
    ("cause", "phase", "automatic", "fewer", "memory_deaths", "action"),
    [
        ("out_of_memory", "loading", True, True, 0, "lower"),
        ("out_of_memory", "proving", True, True, 0, "fewer"),
        ("out_of_memory", "proving", False, True, 0, "fewer"),
        ("out_of_memory", "proving", True, False, 0, "lower"),
        ("out_of_memory", "proving", False, False, 0, "fail"),
        ("killed_by_kernel_oom", "ready", True, True, 1, "fewer"),
        ("killed_by_kernel_oom", "ready", True, False, 2, "same"),
        ("killed_by_kernel_oom", "ready", True, True, 3, "lower"),
        ("killed_by_kernel_oom", "ready", False, True, 3, "fail"),
        ("bad_checkpoint", "loading", True, True, 0, "fail"),
        ("self_test", "proving", True, True, 0, "fail"),
        ("crashed", "ready", False, True, 0, "same"),
        ("no_cuda", "loading", False, True, 0, "elsewhere"),
        ("gpu_lost", "ready", True, True, 0, "elsewhere"),
    ],
)
def test_what_follows(cause: str, phase: Phase, automatic: bool, fewer: bool, memory_deaths: int, action: str) -> None:
    death = replace(certify(KILLED), cause=cause, phase=phase)  # type: ignore[arg-type]
    assert recovery_action(death, automatic, memory_deaths, 1, fewer).kind == action


def test_crashes_back_off() -> None:
    death = replace(certify(KILLED), cause="crashed")
    assert [recovery_action(death, True, 0, crashes).delay_seconds for crashes in (1, 2, 3, 9)] == [1, 2, 4, 60]


def test_a_precision_that_was_set_is_not_replaced_but_the_line_is_told() -> None:
    assert final_refusal(certify(KILLED), automatic=False).env_line == "GLM_PRECISION=auto"
    assert final_refusal(certify(KILLED), automatic=True).env_line is None


def plan_with(free_gib: float, recovery: Recovery) -> Plan:
    return make_plan(
        plan_inputs(SMALL, devices=(gpu(free_gib),), failed_rungs=recovery.failed_rungs, only=recovery.only)
    )


def chosen(plan: Plan) -> Rung:
    assert plan.chosen is not None
    return plan.chosen


def test_out_of_memory_at_load_goes_one_rung_lower_once_the_memory_is_back() -> None:
    recovery = Recovery(automatic=True)
    first = chosen(plan_with(10, recovery))
    recovery.after(replace(certify(KILLED), phase="loading"), first, 100.0)
    assert recovery.verdict(plan_with(5, recovery), first, 100.5) == "wait"
    plan = plan_with(9.5, recovery)
    assert recovery.verdict(plan, first, 101.0) == "start"
    assert (first.precision, chosen(plan).precision) == ("bf16", "int8")


def test_memory_that_does_not_come_back_is_used_as_it_is_after_the_wait() -> None:
    recovery = Recovery(automatic=True)
    first = chosen(plan_with(10, recovery))
    recovery.after(certify(KILLED), first, 100.0)
    plan = plan_with(5, recovery)
    assert recovery.verdict(plan, first, 100 + MEMORY_WAIT_SECONDS) == "start"
    assert chosen(plan).precision == first.precision


def test_a_neighbour_that_keeps_the_memory_costs_a_rung_at_the_third_wait() -> None:
    recovery = Recovery(automatic=True)
    first = chosen(plan_with(10, recovery))
    assert recovery.after(certify(KILLED), first, 0.0).kind == "fewer"
    single = replace(plan_inputs(SMALL, devices=(gpu(10),), only=recovery.only), most_slots=1)
    full = chosen(make_plan(single)).need_bytes / GIB * 0.85
    assert recovery.verdict(plan_with(full, recovery), first, 10.0) == "wait"
    assert recovery.verdict(plan_with(full, recovery), first, 20.0) == "wait"
    lower = plan_with(full, recovery)
    assert recovery.verdict(lower, first, 30.0) == "start"
    assert chosen(lower).precision in ("int8", "int4")


def test_a_precision_that_was_set_gives_up_at_the_third() -> None:
    recovery = Recovery(automatic=False)
    first = chosen(plan_with(10, recovery))
    recovery.after(certify(KILLED), first, 0.0)
    verdicts = [recovery.verdict(plan_with(0.1, recovery), first, now) for now in (9.0, 10.0, 20.0)]
    assert verdicts == ["wait", "wait", "give_up"]


def test_old_deaths_are_forgotten_and_crashes_end_with_service() -> None:
    recovery = Recovery(automatic=True)
    first = chosen(plan_with(10, recovery))
    assert [recovery.after(certify(KILLED), first, now).kind for now in (0.0, 700.0, 1400.0)] == ["fewer"] * 3
    crash = replace(certify(KILLED), cause="crashed")
    assert recovery.after(crash, first, 0.0).delay_seconds == 1
    recovery.served()
    assert recovery.after(crash, first, 0.0).delay_seconds == 1


def test_out_of_memory_in_service_keeps_the_rung_with_half_the_slots() -> None:
    recovery = Recovery(automatic=True)
    first = chosen(plan_with(10, recovery))
    assert (first.precision, first.max_num_seqs) == ("bf16", 16)
    died = first
    for slots in (8, 4):
        assert recovery.after(certify(KILLED), died, 0.0).kind == "fewer"
        plan = plan_with(10, recovery)
        tried, died = died, chosen(plan)
        assert (died.precision, died.max_num_seqs, died.max_model_len) == ("bf16", slots, first.max_model_len)
        assert died.need_bytes < tried.need_bytes, "what is freed is not filled again"
        (origin,) = [origin for origin in plan.origins if origin.name == "GLM_MAX_NUM_SEQS"]
        assert (origin.kind, origin.why.code) == ("stepped_down", "ran_out_with_slots")
    assert recovery.after(certify(KILLED), died, 0.0).kind == "lower", "the third in ten minutes"
    lower = chosen(plan_with(10, recovery))
    assert (lower.precision, lower.max_num_seqs) == ("int8", 16)


def test_slots_that_were_set_are_never_taken_away() -> None:
    recovery = Recovery(automatic=True, automatic_slots=False)
    first = chosen(plan_with(10, recovery))
    assert recovery.after(certify(KILLED), first, 0.0).kind == "same"
    assert recovery.after(replace(certify(KILLED), phase="proving"), first, 0.0).kind == "lower"


@pytest.mark.parametrize(("automatic", "then"), [(True, "lower"), (False, "fail")])
def test_a_proof_that_fails_is_repeated_once_with_half_the_slots(automatic: bool, then: str) -> None:
    recovery, death = Recovery(automatic=automatic), replace(certify(KILLED), phase="proving")
    first = chosen(plan_with(10, recovery))
    assert recovery.after(death, first, 0.0).kind == "fewer"
    second = chosen(plan_with(10, recovery))
    assert (second.precision, second.max_num_seqs) == (first.precision, first.max_num_seqs // 2)
    assert recovery.after(death, second, 0.0).kind == then


def test_the_ledger_remembers_slots_that_were_too_many(tmp_path: Path) -> None:
    path, recovery = tmp_path / "ledger.json", Recovery(automatic=True)
    plan = plan_with(10, recovery)
    first = chosen(plan)
    fewer = replace(first, max_num_seqs=8)
    book = ledger.add(path, ledger.read_ledger(path), ledger.new_entry(plan, first, 1.0, None, proved=False))
    book = ledger.add(path, book, ledger.new_entry(plan, fewer, 2.0, 5, proved=True))
    again = Recovery(automatic=True, failed_rungs=ledger.failed_rungs(ledger.read_ledger(path), plan))
    rung = chosen(plan_with(10, again))
    assert (rung.precision, rung.max_num_seqs, rung.max_model_len) == ("bf16", 8, first.max_model_len)
    asked = replace(
        plan_inputs(SMALL, devices=(gpu(10),), failed_rungs=again.failed_rungs), settings=Settings(max_num_seqs=16)
    )
    assert chosen(make_plan(asked)).max_num_seqs == 16, "what is set is tried again"
    book = ledger.add(path, book, ledger.new_entry(plan, fewer, 3.0, 5, proved=True))
    assert ledger.failed_rungs(book, plan) == again.failed_rungs, "as long as nobody has proved more"
    book = ledger.add(path, book, ledger.new_entry(plan, first, 4.0, 5, proved=True))
    assert ledger.failed_rungs(book, plan) == ()


def test_the_ledger_remembers_a_failed_rung_until_it_is_proved(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    plan = plan_with(10, Recovery(automatic=True))
    rung = chosen(plan)
    book = ledger.read_ledger(path)
    book = ledger.add(path, book, ledger.new_entry(plan, rung, 1.0, None, proved=False))
    book = ledger.read_ledger(path)
    (failed,) = ledger.failed_rungs(book, plan)
    assert (failed.precision, failed.devices) == ("bf16", ("GPU-0000",))
    assert failed.why == RanOutBefore("bf16", rung.need_bytes)
    other = replace(plan, model=replace(plan.model, stored_bytes=2))
    assert ledger.failed_rungs(book, other) == ()
    book = ledger.add(path, book, ledger.new_entry(plan, rung, 2.0, 5, proved=True))
    assert ledger.failed_rungs(book, plan) == ()


def test_a_ledger_that_names_devices_in_one_string_is_still_read(tmp_path: Path) -> None:
    path, inputs = tmp_path / "ledger.json", plan_inputs(devices=(gpu(12), gpu(12, index=1)))
    plan = make_plan(inputs)
    entry = ledger.new_entry(plan, chosen(plan), 1.0, None, proved=False)
    ledger.add(path, ledger.Ledger(), entry)
    written = json.loads(path.read_text())
    assert written["entries"][0].pop("devices") == ["GPU-0000", "GPU-0001"]
    assert written["entries"][0]["device"] == "GPU-0000+GPU-0001"
    path.write_text(json.dumps(written))
    assert ledger.read_ledger(path).entries == (entry,)


def test_a_damaged_ledger_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text('{"entries": [{}]}')
    assert ledger.read_ledger(path).entries == ()


def test_a_gpu_that_torch_cannot_use_is_left_out_even_where_the_precision_was_set() -> None:
    rung = make_plan(plan_inputs(SMALL, devices=(gpu(8),))).chosen
    assert rung is not None
    recovery = Recovery(automatic=False, only=(rung.precision, rung.devices))
    death = certify(replace(KILLED, phase="loading", exit_code=1, account=EngineDown("no_cuda", "no libcuda")))
    recovery.after(death, rung, 0.0)
    assert recovery.only is None
    marked = replace(gpu(8), unusable=recovery.unusable[rung.device])
    plan = make_plan(plan_inputs(SMALL, devices=(marked,)))
    assert plan.chosen is not None and plan.chosen.device == "cpu"
    assert recovery.verdict(plan, rung, 1.0) == "start"


def test_a_lost_gpu_is_the_cause_whatever_the_engine_says() -> None:
    lost = ContainerLostGpu("Unknown Error")
    death = certify(replace(KILLED, exit_code=1, account=EngineDown("crashed", "CUDA error"), gpu_lost=lost))
    assert (death.cause, death.why) == ("gpu_lost", text(lost))
