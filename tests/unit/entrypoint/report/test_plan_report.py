from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from app.contract.plan import Placement, Text
from entrypoint.machine.gpus import probe_gpus
from entrypoint.machine.torch_build import read_torch_build
from entrypoint.plan.inputs import ReachedSpeed
from entrypoint.plan.planner import make_plan
from entrypoint.reasons.machine import NoDriver
from entrypoint.report.plan_report import plan_lines, report
from entrypoint.report.speeds import speed_range
from entrypoint.report.styled_table import show
from entrypoint.settings.settings import Settings
from entrypoint.units import size
from tests.unit.planning import GIB, HOST, SMALL, gpu, plan_inputs


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MiB"), (5 * 2**20, "5.0 MiB"), (500 * 2**20, "500 MiB"), (GIB, "1.00 GiB"), (15 * GIB // 2, "7.50 GiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_the_order_is_choice_why_other_rungs_origins_machine() -> None:
    host = replace(HOST, limit_bytes=32 * GIB, held_bytes=GIB, gpu_note=None)
    lines = plan_lines(make_plan(plan_inputs(devices=(gpu(12),), host=host)))
    parts = [
        "Chosen    int8 on GPU 0, ",
        "          the highest precision that fits: needs 11.",
        "  GiB          need   free  weights  cache  activations  loading  runtime  margin",
        "→ int8 GPU 0  11.",
        "✗ bf16 GPU 0  19.",
        "  int4 GPU 0   7.",
        "    fits too; a higher precision was chosen",
        "  bf16 CPU    ",
        "    fits too; the GPU was chosen",
        "  GLM_PRECISION      int8   measured: see above",
        "  device             GPU 0  measured: 12.00 GiB free on this device",
        "Model     toy: ",
        "Memory    64.00 GiB free of 64.00 GiB RAM, container limit 32.00 GiB",
        "          1.00 GiB of it used by a running Berth",
        "CPU       8 of Toy, native bf16",
        "GPU 0     Toy RTX: 12.00 GiB free of 80.00 GiB, compute capability 8.6, driver 580.95, GPU-0000",
    ]
    places = [next(n for n, line in enumerate(lines) if line.startswith(part)) for part in parts]
    assert places == sorted(places)
    assert next(line for line in lines if line.startswith("✗")).endswith(" short")


@pytest.mark.parametrize("width", [118, 100, 80, 60])
def test_no_line_is_wider_than_it_may_be(width: int) -> None:
    """Below 77 columns the table's own rows stay whole; a terminal wraps them."""
    lines = plan_lines(make_plan(plan_inputs(devices=(gpu(12),))), width)
    assert max(map(len, lines)) <= max(width, 77)
    assert any("overhead" in line for line in lines) == (width < 90)


def test_the_speed_stands_with_the_choice_and_in_the_table() -> None:
    host = replace(HOST, memory_bytes_per_second=40_000_000_000)
    card = replace(gpu(12), memory_bytes_per_second=360_000_000_000)
    inputs = plan_inputs(devices=(card,), host=host)
    plan = make_plan(inputs)
    lines = plan_lines(plan)
    assert plan.chosen is not None
    assert plan.chosen.speed is not None
    about = speed_range(plan.chosen.speed, " to ")
    assert re.fullmatch(r"\d\d to \d\d", about)
    assert lines[2] == "          the cache takes 320 MiB for each request"
    assert lines[3].startswith(f"          about {about} tokens a second for one request, estimated ")
    at = next(n for n, line in enumerate(lines) if line.endswith("tok/s est."))
    assert lines[at + 1].split()[-2:] == [about.replace(" to ", "-"), "chosen"]
    assert lines[at + 2].endswith(" short"), "what does not fit has no speed"
    assert any(line.endswith("native bf16, reads 40 GB/s") for line in lines)
    assert any("80.00 GiB, 360 GB/s, compute" in line for line in lines)
    assert max(map(len, plan_lines(plan, 80))) <= 80
    again = replace(inputs, reached=(ReachedSpeed("int8", ("GPU-0000",), 21.4),))
    assert plan_lines(make_plan(again))[3] == "          reached 21 tokens a second here for one request"


def test_a_log_is_plain_text() -> None:
    text = "\n".join(plan_lines(make_plan(plan_inputs(devices=(gpu(12),)))))
    assert "\x1b" not in text
    assert {character for character in text if ord(character) > 126} == {"→", "✗"}


def test_a_terminal_has_colours_and_the_same_words() -> None:
    plan = make_plan(plan_inputs(devices=(gpu(12),)))
    file = io.StringIO()
    show(report(plan, 118), Console(file=file, width=118, force_terminal=True, color_system="standard"))
    assert "\x1b[1;32m" in file.getvalue()
    bare = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert [line.rstrip() for line in bare.splitlines() if line.strip()] == plan_lines(plan)


def test_small_models_are_told_in_mib() -> None:
    lines = plan_lines(make_plan(plan_inputs(SMALL, host=replace(HOST, available_bytes=GIB * 9 // 10))))
    assert any(line.startswith("  MiB") for line in lines)
    assert any("short" in line and line.startswith("✗ bf16") for line in lines)


def test_layers_on_several_devices_and_long_reasons() -> None:
    cards = (gpu(20, index=0), gpu(20, index=1))
    plan = make_plan(plan_inputs(devices=cards))
    (first, *others) = plan.rungs
    reason = Text("set by you, and it fits only because " + "the experts stay 16-bit and " * 8, "")
    placements = (
        Placement("GPU-0000", 0, 28, 14 * GIB, 15 * GIB),
        Placement("GPU-0001", 28, 1, GIB, 15 * GIB),
        Placement("cpu", 29, 11, 6 * GIB, 60 * GIB),
    )
    split = replace(
        first, devices=("GPU-0000", "GPU-0001", "cpu"), verdict="excluded", reason=reason, placements=placements
    )
    lines = plan_lines(replace(plan, rungs=(split, *others)), 100)
    at = next(n for n, line in enumerate(lines) if line.startswith("- bf16 GPU 0+1+CPU"))
    assert lines[at + 1 : at + 4] == [
        "    GPU 0: layers 0-27, 14.00 GiB of 15.00 GiB",
        "    GPU 1: layer 28, 1.00 GiB of 15.00 GiB",
        "    CPU: layers 29-39, 6.00 GiB of 60.00 GiB",
    ]
    assert all(line.startswith("    ") for line in lines[at + 4 : at + 7])
    assert max(map(len, lines)) <= 100


def test_a_note_of_a_rung_that_is_too_large_is_told_beside_its_numbers() -> None:
    plan = make_plan(plan_inputs(devices=(gpu(12),)))
    large = next(rung for rung in plan.rungs if rung.verdict == "too_large")
    more = (Text("the experts stay 16-bit", ""),)
    rungs = tuple(replace(rung, notes=more) if rung is large else rung for rung in plan.rungs)
    lines = plan_lines(replace(plan, rungs=rungs))
    assert "    the experts stay 16-bit" in lines


def test_a_refusal_comes_first_with_the_line_to_change() -> None:
    host = replace(HOST, available_bytes=13 * GIB, gpu_note=Text("No driver.", "没有驱动。"))
    lines = plan_lines(make_plan(plan_inputs(settings=Settings(model="x", precision="bf16"), host=host)))
    assert lines[0].startswith("Refused   toy does not fit. The smallest plan (bf16 on the CPU, 2048 tokens) needs ")
    assert lines[3] == "          GLM_PRECISION=auto"
    assert lines[-1] == "GPU       none. No driver."


def test_this_machine_answers_or_says_why_not() -> None:
    gpus = probe_gpus({})
    assert (gpus.why_none is None) == bool(gpus.devices)
    if not Path("/proc/driver/nvidia").exists():
        assert gpus.devices == ()
        assert gpus.why_none == NoDriver()


def test_what_torch_can_run_on(tmp_path: Path) -> None:
    assert read_torch_build(tmp_path) is None
    (tmp_path / "berth-torch.json").write_text('{"version": "2.13.0+cpu", "cuda": null, "arches": []}')
    build = read_torch_build(tmp_path)
    assert build is not None
    assert (build.version, build.cuda, build.arches) == ("2.13.0+cpu", None, ())
    (tmp_path / "berth-torch.json").write_text("{")
    assert read_torch_build(tmp_path) is None
