"""The speed that a rung reached: kept beside what it took, and told to the next plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from app.contract.plan import Plan, Rung
from entrypoint.plan.inputs import ReachedSpeed
from entrypoint.plan.planner import make_plan
from entrypoint.state import ledger
from entrypoint.state.ledger import Ledger
from tests.unit.planning import GIB, HOST, SMALL, gpu, plan_inputs

INPUTS = plan_inputs(SMALL, devices=(gpu(10),))


def proved(path: Path, known: Ledger, plan: Plan, rung: Rung) -> Ledger:
    return ledger.add(path, known, ledger.new_entry(plan, rung, 1.0, GIB, proved=True))


def test_the_speed_is_kept_with_the_rung_that_serves(tmp_path: Path) -> None:
    path, plan = tmp_path / "ledger.json", make_plan(INPUTS)
    bf16, int8, *_ = plan.rungs
    known = proved(path, Ledger(), plan, int8)
    known = proved(path, known, plan, bf16)
    assert ledger.reached_speeds(known, INPUTS) == ()
    ledger.add_speed(path, known, 9.5)
    again = ledger.read_ledger(path)
    assert [entry.tokens_per_second for entry in again.entries] == [None, 9.5]
    reached = ledger.reached_speeds(again, INPUTS)
    assert reached == (ReachedSpeed("bf16", ("GPU-0000",), 9.5),)
    told = make_plan(replace(INPUTS, reached=reached)).chosen
    assert told is not None
    assert told.reached_tokens_per_second == 9.5


def test_a_later_start_without_a_long_answer_keeps_the_speed(tmp_path: Path) -> None:
    path, plan = tmp_path / "ledger.json", make_plan(INPUTS)
    known = ledger.add_speed(path, proved(path, Ledger(), plan, plan.rungs[0]), 9.5)
    known = proved(path, known, plan, plan.rungs[0])
    assert [speed.tokens_per_second for speed in ledger.reached_speeds(known, INPUTS)] == [9.5]
    known = ledger.add_speed(path, known, 4.0)
    assert [speed.tokens_per_second for speed in ledger.reached_speeds(known, INPUTS)] == [4.0]


def test_only_what_is_news_is_written(tmp_path: Path) -> None:
    path, plan = tmp_path / "ledger.json", make_plan(INPUTS)
    known = ledger.add_speed(path, proved(path, Ledger(), plan, plan.rungs[0]), 10.0)
    path.unlink()
    assert ledger.add_speed(path, known, 10.9) is known
    assert not path.exists()
    assert ledger.add_speed(path, known, 11.2).entries[-1].tokens_per_second == 11.2
    assert path.exists()


def test_another_machine_has_a_speed_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    here = plan_inputs(SMALL)
    plan = make_plan(here)
    known = ledger.add_speed(path, proved(path, Ledger(), plan, plan.rungs[0]), 9.5)
    assert ledger.reached_speeds(known, here) != ()
    assert ledger.reached_speeds(known, replace(here, host=replace(HOST, ram_bytes=32 * GIB))) == ()


def test_a_ledger_without_speeds_is_read(tmp_path: Path) -> None:
    path, plan = tmp_path / "ledger.json", make_plan(INPUTS)
    proved(path, Ledger(), plan, plan.rungs[0])
    old = json.loads(path.read_text())
    del old["entries"][0]["tokens_per_second"]
    path.write_text(json.dumps(old))
    assert ledger.read_ledger(path).entries[0].tokens_per_second is None
