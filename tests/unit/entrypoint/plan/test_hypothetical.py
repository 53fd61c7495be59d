from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.contract import exits
from app.contract.codec import from_json
from app.contract.plan import Plan
from entrypoint.plan.hypothetical import (
    IMAGE_TORCH,
    Cards,
    HypotheticalPlan,
    contexts,
    every_rung,
    kept_bytes,
    nearest_miss,
    parse_capability,
    parse_cards,
    what_if,
)
from entrypoint.plan.planner import make_plan
from entrypoint.report.hypothetical_report import cards_table, every_table
from entrypoint.report.styled_table import plain
from entrypoint.settings.settings import Settings, SettingsError
from tests.paths import TOP
from tests.sparse import sparse_checkpoint
from tests.unit.planning import GIB, HOST, SMALL, plan_inputs
from tools.checkpoints.published import published_inputs

MIB = 1024**2


def cards(inputs: str) -> Cards:
    (one,) = parse_cards(inputs)
    return one


def test_sizes_of_cards() -> None:
    assert parse_cards("8GiB, 24gb,15360 MiB,2x22.5GiB") == (
        Cards("8GiB", 1, 8 * GIB),
        Cards("24gb", 1, 24_000_000_000),
        Cards("15360 MiB", 1, 15 * GIB),
        Cards("2x22.5GiB", 2, 45 * GIB // 2),
    )


@pytest.mark.parametrize(
    "bad", ["", "8", "8GiB,", "8 TB", "-8GiB", "0GiB", "0x8GiB", "17x8GiB", "2x", "8GiBx2", "1e3GiB"]
)
def test_what_is_no_size_is_named(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"--vram '.*': should be a card's memory with its unit, such as 8GiB"):
        parse_cards(bad)


def test_compute_capability() -> None:
    assert parse_capability("7.5") == (7, 5)
    assert parse_capability("12.0") == (12, 0)
    for bad in ("", "7", "sm_75", "7.55"):
        with pytest.raises(SettingsError, match="--compute-capability"):
            parse_capability(bad)


@pytest.mark.parametrize(("total_mib", "told_mib"), [(15360, 450), (49140, 569), (81920, 870)])
def test_what_the_driver_keeps_covers_what_others_saw(total_mib: int, told_mib: int) -> None:
    assert told_mib * MIB <= kept_bytes(total_mib * MIB) <= 1.2 * max(told_mib * MIB, 512 * MIB)


def test_the_assumed_torch_is_the_one_that_is_pinned() -> None:
    pinned = (TOP / "requirements" / "torch.txt").read_text(encoding="utf-8")
    assert f"torch==={IMAGE_TORCH.version.partition('+')[0]} " in pinned


def test_the_card_takes_the_place_of_what_is_here() -> None:
    inputs = what_if(plan_inputs(torch=None), cards("16GiB"))
    (device,) = inputs.devices
    assert device.free_bytes == 16 * GIB - 512 * MIB
    plan = make_plan(inputs)
    assert plan.chosen and plan.chosen.precision == "int8"
    assert plan.chosen.free_bytes == device.free_bytes
    assert plan.host == inputs.host


def test_cards_that_are_not_here_are_in_a_host_that_can_load_onto_them() -> None:
    little = plan_inputs(host=replace(HOST, available_bytes=GIB // 2, ram_bytes=GIB))
    assert make_plan(what_if(little, cards("24GiB"))).chosen
    here = make_plan(what_if(little, cards("24GiB"), cpu=True))
    assert here.refusal and here.refusal.why.code == "cannot_load"


def test_the_cpu_is_a_way_out_only_when_asked() -> None:
    alone = make_plan(what_if(plan_inputs(), cards("4GiB")))
    assert alone.chosen is None and alone.refusal
    assert alone.refusal.env_line != "GLM_REQUIRE_GPU=0"
    assert all(not rung.uses_cpu for rung in alone.rungs)
    helped = make_plan(what_if(plan_inputs(), cards("4GiB"), cpu=True))
    assert helped.chosen and helped.chosen.uses_cpu


def test_pairs_are_split_where_one_is_not_enough() -> None:
    pair = make_plan(what_if(plan_inputs(), cards("2x8GiB"))).chosen
    single = make_plan(what_if(plan_inputs(), cards("2x24GiB"))).chosen
    assert pair and [part.device for part in pair.placements] == ["what-if-0", "what-if-1"]
    assert sum(part.layers for part in pair.placements) == 40
    assert single and not single.placements


def test_the_compute_capability_counts() -> None:
    turing = make_plan(what_if(plan_inputs(), cards("24GiB"), (7, 5))).chosen
    volta = make_plan(what_if(plan_inputs(), cards("24GiB"), (7, 0)))
    assert turing and turing.precision == "fp16"
    assert volta.chosen is None and {rung.verdict for rung in volta.rungs} == {"unsupported"}


def test_lengths_double_up_to_the_models_own() -> None:
    assert contexts(32768) == (2048, 4096, 8192, 16384, 32768)
    assert contexts(202752)[-2:] == (131072, 202752)
    assert contexts(1000) == (1000,)


def test_every_rung_at_every_length() -> None:
    inputs = what_if(plan_inputs(), cards("12GiB"))
    rungs = every_rung(inputs)
    assert [(rung.precision, rung.max_model_len) for rung in rungs] == [
        (precision, length) for precision in ("bf16", "int8", "int4") for length in contexts(32768)
    ]
    for rung in rungs:
        assert sum(term.bytes for term in rung.terms) == rung.need_bytes
        assert rung.max_num_seqs == 1
        assert (rung.verdict == "too_large") == (rung.need_bytes > rung.free_bytes)
    caches = [term.bytes for rung in rungs for term in rung.terms if term.name == "kv_cache"]
    assert caches[:5] == [40 * 1024 * length for length in contexts(32768)]


def test_what_lacks_least_is_told_at_the_shortest_context() -> None:
    inputs = what_if(plan_inputs(), cards("4GiB"))
    missed = nearest_miss(inputs, make_plan(inputs).rungs)
    assert missed and (missed.precision, missed.max_model_len) == ("int4", 2048)
    set_by_user = replace(inputs, settings=Settings(model="x", max_model_len=16384))
    missed = nearest_miss(set_by_user, make_plan(set_by_user).rungs)
    assert missed and missed.max_model_len == 16384


def test_one_line_a_card_then_what_was_assumed() -> None:
    inputs = [what_if(plan_inputs(), one, (7, 5)) for one in parse_cards("4GiB,12GiB,2x8GiB")]
    answers = [
        HypotheticalPlan(cards, make_plan(one)) for cards, one in zip(("4GiB", "12GiB", "2x8GiB"), inputs, strict=True)
    ]
    lines = plain(cards_table(answers, inputs, 100))
    (small,) = [line.split() for line in lines if line.startswith("✗")]
    assert small[1:5] == ["4GiB", "int4", "2048", "1"] and small[-1] == "short"
    (pair,) = [number for number, line in enumerate(lines) if line.split()[:4] == ["2x8GiB", "int8", "GPU", "0+1"]]
    assert lines[pair + 1].startswith("    GPU 0: layers 0-") and lines[pair + 2].startswith("    GPU 1: layers ")
    text = " ".join(" ".join(lines).split())
    assert (
        "compute capability 7.5" in text
        and "the driver reserves 512 MiB of each, or 1/80" in text
        and "2.13.0+cu130" in text
    )
    assert "no layers on the CPU" in text
    assert max(map(len, lines)) <= 100


def test_cards_that_cannot_be_used_say_why() -> None:
    inputs = [what_if(plan_inputs(), one, (7, 0)) for one in parse_cards("24GiB,32GiB")]
    lines = plain(
        cards_table(
            [HypotheticalPlan("24GiB", make_plan(inputs[0])), HypotheticalPlan("32GiB", make_plan(inputs[1]))],
            inputs,
            100,
        )
    )
    assert [line.split()[-1] for line in lines if line.startswith("✗")] == ["unsupported", "unsupported"]
    assert sum("compute capability 7.0 is not in torch" in line for line in lines) == 1


def test_a_mixture_of_experts_says_how_little_quantising_saves() -> None:
    inputs = [what_if(published_inputs("zai-org/GLM-4.7-Flash"), one) for one in parse_cards("24GiB,48GiB,80GiB")]
    answers = [
        HypotheticalPlan(cards, make_plan(one)) for cards, one in zip(("24GiB", "48GiB", "80GiB"), inputs, strict=True)
    ]
    lines = plain(cards_table(answers, inputs, 118))
    (at,) = [number for number, line in enumerate(lines) if line.startswith("    int4 saves only ")]
    assert "experts are not quantised" in lines[at]
    assert lines[at - 1].startswith("✗ 48GiB") and lines[at + 1].split()[:2] == ["80GiB", "bf16"]


def test_the_full_table_is_readable_in_100_columns() -> None:
    inputs = plan_inputs(devices=what_if(plan_inputs(), cards("2x8GiB")).devices)
    lines = plain(every_table(HypotheticalPlan(None, make_plan(inputs), every_rung(inputs)), 100))
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("Chosen    int8 on GPU 0+1, ")
    head = next(line for line in lines if line.startswith("  GiB"))
    assert head.split() == ["GiB", "context", "weights", "cache", "activations", "overhead", "need", "free"]
    assert sum(line.startswith("  int8 GPU 0+1") for line in lines) == 1
    assert any(line.endswith(" short") for line in lines) and any(line.endswith("  fits") for line in lines)
    assert lines[-1] == "Counted   one request at a time; GLM_MAX_NUM_SEQS changes this"


def test_settings_exclude_with_their_reason() -> None:
    inputs = plan_inputs(
        SMALL, settings=Settings(model="x", precision="int8"), host=replace(HOST, available_bytes=4 * GIB)
    )
    lines = plain(every_table(HypotheticalPlan(None, make_plan(inputs), every_rung(inputs)), 100))
    assert any(line.endswith("excluded") for line in lines)
    assert "    not considered: GLM_PRECISION=int8 is set; it would fit" in lines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse_checkpoint(tmp_path_factory.mktemp("whatif") / "GLM-4-9B-0414")


def plan_command(model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which also tells on stderr whether it loaded torch."""
    script = (
        "import sys; from entrypoint.__main__ import main; code = main(sys.argv[1:]);"
        "sys.stderr.write('torch was loaded' * ('torch' in sys.modules)); sys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "plan", *arguments],
        cwd=model.parent,
        env={"PYTHONPATH": str(TOP), "GLM_MODEL": str(model), "GLM_STATE_DIR": str(model.parent / "state")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_json_for_several_cards(model: Path) -> None:
    done = plan_command(model, "--vram", "4GiB,16GiB", "--json", "--all")
    assert (done.returncode, done.stderr) == (exits.OK, "")
    answers = json.loads(done.stdout)["answers"]
    assert [answer["asked"] for answer in answers] == ["4GiB", "16GiB"]
    plans = [from_json(Plan, answer["plan"]) for answer in answers]
    assert plans[0].chosen is None and plans[1].chosen and plans[1].chosen.precision == "int8"
    assert {rung["max_model_len"] for rung in answers[1]["every"]} == set(contexts(32768))


def test_json_of_this_machine(model: Path) -> None:
    alone = plan_command(model, "--json")
    assert set(json.loads(alone.stdout)) == {"model", "host", "devices", "rungs", "chosen", "refusal", "origins"}
    every = plan_command(model, "--json", "--all")
    assert set(json.loads(every.stdout)) == {"asked", "plan", "every"}
    assert alone.stderr == every.stderr == ""


def test_exit_codes_and_wrong_options(model: Path) -> None:
    assert plan_command(model, "--vram", "4GiB").returncode == exits.REFUSED_PLAN
    assert plan_command(model, "--vram", "4GiB,80GiB").returncode == exits.OK
    wrong = plan_command(model, "--vram", "8")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (exits.REFUSED_SETTING, "", 1)
    assert wrong.stderr.startswith("berth: --vram '8': should be")
    for alone in (["--compute-capability", "7.5"], ["--allow-cpu"]):
        told = plan_command(model, *alone)
        assert (told.returncode, told.stdout) == (exits.REFUSED_SETTING, "")
        assert "need --vram" in told.stderr
