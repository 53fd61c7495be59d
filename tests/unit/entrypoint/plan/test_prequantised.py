"""Checkpoints that are stored quantised, from their headers to a plan or a refusal."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.contract import exits
from app.contract.plan import Plan
from app.layouts.quantisation import Quantised, quantised_of
from app.layouts.registry import LAYOUTS
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from entrypoint.plan.footprint import Load, weights_bytes
from entrypoint.plan.planner import make_plan
from entrypoint.settings.settings import Settings
from tests.processes.service import run_entrypoint
from tests.sparse import GLM4_9B, config_for
from tests.unit.planning import GIB, HOST, gpu, plan_inputs

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}},
}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
DOUBLE = NF4 | {"bnb_4bit_use_double_quant": True}
SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1}
GPTQ = {"quant_method": "gptq", "bits": 4}


def headers(quantisation: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, dtypes and shapes of GLM-4-9B's tensors in a format."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    quantised = quantised_of({"quantization_config": quantisation})
    assert quantised is not None
    for stored in stored_tensors(LAYOUTS["glm4"], GLM4_9B):
        parameter = stored.parts[0].parameter
        found[stored.name] = ("BF16", stored.shape)
        if not parameter.linear:
            continue
        if quantised.kind in ("nf4", "int8"):
            for name, (dtype, count) in quantised.tensors(stored.name, parameter).items():
                found[name] = (dtype, ((count or 90) // SIZES[dtype],))
        else:
            rows, columns = stored.shape
            found[stored.name] = ("F8_E4M3", stored.shape)
            found[f"{stored.name}_scale_inv"] = ("F32", (math.ceil(rows / 128), math.ceil(columns / 128)))
    return found


def made(folder: Path, quantisation: dict[str, Any], **changes: tuple[str, tuple[int, ...]] | None) -> Path:
    """A sparse checkpoint; `changes` replace or leave out tensors."""
    folder.mkdir()
    config = config_for(GLM4_9B, "glm4") | {"quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, entry in (headers(quantisation) | changes).items():
        if entry is not None:
            begin, end = end, end + SIZES[entry[0]] * math.prod(entry[1])
            header[name] = {"dtype": entry[0], "shape": entry[1], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def plan_of(checkpoint: Checkpoint, settings: Settings | None = None, **changes: Any) -> Plan:
    return make_plan(plan_inputs(settings=settings, stored=checkpoint.stored, **changes))


@pytest.mark.parametrize(
    ("quantisation", "precision", "double"), [(INT8, "int8", False), (NF4, "int4", False), (DOUBLE, "int4", True)]
)
def test_bitsandbytes_is_one_rung_as_stored(
    tmp_path: Path, quantisation: dict[str, Any], precision: str, double: bool
) -> None:
    checkpoint = read_checkpoint(made(tmp_path / "m", quantisation))
    plan = plan_of(checkpoint, devices=(gpu(24),))
    assert [rung.precision for rung in plan.rungs if rung.device == "GPU-0000"] == [precision]
    assert {rung.precision for rung in plan.rungs} == {precision}
    assert plan.chosen is not None
    assert plan.chosen.reason.code == "fits_as_stored"
    assert plan.chosen.reason.values["format"].startswith("bitsandbytes ")
    weights = next(term.bytes for term in plan.chosen.terms if term.name == "weights")
    load = Load(plan.chosen.precision, "bfloat16", 1, 1, double_quant=double)
    assert weights == weights_bytes(checkpoint.layout, checkpoint.shape, load)
    # The files hold the same, but for the state as JSON or the offset in it, and int8's order of rows.
    assert abs(weights - checkpoint.stored_bytes) < 100 * 240


def test_without_double_quantisation_more_is_planned() -> None:
    loads = [Load("int4", "bfloat16", 1, 1, double_quant=double) for double in (False, True)]
    single, double = (weights_bytes(LAYOUTS["glm4"], GLM4_9B, load) / GIB for load in loads)
    assert (single, double) == (pytest.approx(6.59, abs=0.011), pytest.approx(6.23, abs=0.011))


def test_another_precision_is_refused_with_the_line_to_change(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(made(tmp_path / "m", DOUBLE))
    plan = plan_of(checkpoint, Settings(model="x", precision="int8"), devices=(gpu(24),))
    assert plan.chosen is None
    assert plan.refusal is not None
    assert plan.refusal.why.code == "no_precision_usable"
    assert plan.refusal.why.values["reason"] == {
        "code": "stored_otherwise",
        "stored": "int4",
        "format": "bitsandbytes nf4",
        "requested": "int8",
    }
    assert plan.refusal.env_line == "GLM_PRECISION=auto"
    same = plan_of(checkpoint, Settings(model="x", precision="int4"), devices=(gpu(24),))
    assert same.chosen is not None


@pytest.mark.parametrize("quantisation", [FP8, COMPRESSED])
@pytest.mark.parametrize(
    ("capability", "code"),
    [(None, "fp8_expands"), ((8, 0), "fp8_expands"), ((8, 9), "no_fp8_kernels"), ((9, 0), "no_fp8_kernels")],
)
def test_fp8_is_planned_from_its_headers_and_refused(
    tmp_path: Path, quantisation: dict[str, Any], capability: tuple[int, int] | None, code: str
) -> None:
    checkpoint = read_checkpoint(made(tmp_path / "m", quantisation))
    assert checkpoint.stored is not None
    devices = (gpu(80, capability),) if capability else ()
    plan = plan_of(checkpoint, devices=devices)
    assert plan.chosen is None
    assert {(rung.precision, rung.verdict) for rung in plan.rungs} == {("fp8", "unsupported")}
    assert plan.rungs[0].reason.code == code
    if code == "fp8_expands":
        assert round(plan.rungs[0].reason.values["need_bytes"] / GIB, 2) == 17.51
    weights = next(term.bytes for term in plan.rungs[0].terms if term.name == "weights")
    assert weights == checkpoint.stored_bytes == checkpoint.stored.bytes
    assert plan.refusal is not None
    why = plan.refusal.why
    assert (why.code, why.values["stored_bytes"]) == ("format_unsupported", weights)
    assert code in [reason["code"] for reason in why.values["reasons"]]
    assert (plan.refusal.remedy.code, plan.refusal.remedy.values) == ("use16_bit_checkpoint", {"model": None})
    assert plan.refusal.env_line is None


def test_the_16_bit_checkpoint_beside_a_published_fp8_one_is_named(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(made(tmp_path / "m", FP8))
    inputs = plan_inputs(stored=checkpoint.stored)
    plan = make_plan(replace(inputs, model=replace(inputs.model, name="zai-org/GLM-4.5-Air-FP8"), host=HOST))
    assert plan.refusal is not None
    assert plan.refusal.env_line == "GLM_MODEL=zai-org/GLM-4.5-Air"


@pytest.mark.parametrize(
    ("quantisation", "called"),
    [
        (GPTQ, "GPTQ 4-bit"),
        ({"quant_method": "awq", "bits": 4}, "AWQ 4-bit"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors pack-quantized"),
        (NF4 | {"bnb_4bit_quant_type": "fp4"}, "bitsandbytes fp4 in uint8"),
        (NF4 | {"bnb_4bit_quant_storage": "bfloat16"}, "bitsandbytes nf4 in bfloat16"),
        ({}, "NONE"),
    ],
)
def test_other_formats_are_named_with_their_bytes(tmp_path: Path, quantisation: dict[str, Any], called: str) -> None:
    folder = made(tmp_path / "m", FP8)
    config = config_for(GLM4_9B, "glm4") | {"quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps(config))
    says = rf"{folder} is stored as {called} \(9.9\d GiB\), which this engine can't read for glm4; use the 16-bit"
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(folder)


PROJ = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("quantisation", "changes", "says"),
    [
        (FP8, {PROJ: ("F8_E4M3", (4096, 4096))}, "has shape .4096, 4096., config.json says"),
        (FP8, {PROJ: ("I8", (4096, 13696))}, "is stored as I8"),
        (FP8, {PROJ: None}, "is missing"),
        (FP8, {"model.stranger": ("F32", (1,))}, "'model.stranger' is not part of a glm4 model stored as FP8"),
        (DOUBLE, {PROJ: ("BF16", (4096, 13696))}, "bytes of BF16; bitsandbytes nf4 needs 28,049,408 bytes of U8"),
        (DOUBLE, {f"{PROJ}.quant_map": None}, "quant_map is missing; bitsandbytes nf4 needs 64 bytes of F32"),
        (INT8, {"model.norm.weight": ("I8", (4096,))}, "model.norm.weight is stored as I8"),
    ],
)
def test_headers_that_are_not_of_the_format(
    tmp_path: Path, quantisation: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(made(tmp_path / "m", quantisation, **changes))


def test_the_command_refuses_with_3_what_this_machine_cannot_run_and_with_2_what_cannot_be_read(tmp_path: Path) -> None:
    folder = made(tmp_path / "GLM-4-9B-FP8", FP8)
    run = run_entrypoint("plan", GLM_MODEL=str(folder), GLM_STATE_DIR=str(tmp_path / "state"))
    assert run.returncode == exits.REFUSED_PLAN
    assert "FP8 would expand to bf16: needs 17.51 GiB" in run.stdout
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": GPTQ}
    (folder / "config.json").write_text(json.dumps(config))
    run = run_entrypoint("plan", GLM_MODEL=str(folder), GLM_STATE_DIR=str(tmp_path / "state"))
    assert run.returncode == exits.REFUSED_SETTING
    assert "is stored as GPTQ 4-bit" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_the_published_layouts_quantisation_is_told() -> None:
    assert quantised_of({}) is None
    assert quantised_of({"quantization_config": COMPRESSED}) == Quantised("fp8", "FP8 (compressed-tensors)")
