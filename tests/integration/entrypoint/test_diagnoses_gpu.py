"""What a GPU host can get wrong, by its symptom: the real command and pynvml, on a stub of the driver's library."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.nvml_stub import (
    CUDA_13,
    DRIVER_NOT_LOADED,
    GIB,
    GPU_IS_LOST,
    LIBRARY,
    NO_PERMISSION,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    UNKNOWN,
    VERSION_MISMATCH,
    Stub,
    card,
    instance,
    python_with_torch_facts,
)
from tests.processes.service import TOP, clean_environment


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its notes say that torch is a CUDA build."""
    return python_with_torch_facts(tmp_path_factory.mktemp("python") / "venv", CUDA_13)


@dataclass(frozen=True)
class Planned:
    """`plan --json`, as much of it as these tests read."""

    code: int
    plan: dict[str, Any]

    @property
    def note(self) -> dict[str, Any]:
        """Why there is no GPU: sentences, code and values."""
        assert self.plan["host"]["gpu_note"], self.plan["devices"]
        return dict(self.plan["host"]["gpu_note"])

    @property
    def notes(self) -> list[dict[str, Any]]:
        return list(self.plan["host"]["gpu_notes"])

    @property
    def uuids(self) -> list[str]:
        return [device["uuid"] for device in self.plan["devices"]]

    def rungs_on_gpu(self) -> list[dict[str, Any]]:
        return [rung for rung in self.plan["rungs"] if rung["device"] != "cpu"]


def plan(python: Path, environment: dict[str, str], **settings: str) -> Planned:
    done = subprocess.run(
        [python, "-m", "entrypoint", "plan", "--json"],
        env={**clean_environment(CUDA_DEVICE_ORDER="PCI_BUS_ID", **settings), **environment, "PYTHONPATH": str(TOP)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Planned(done.returncode, json.loads(done.stdout))


def uuid(number: int) -> str:
    return str(card(number)["uuid"])


def only(notes: list[dict[str, Any]]) -> dict[str, Any]:
    (note,) = notes
    return note


def reason(note: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Code and values of a sentence, which is there in both languages."""
    assert note["en"] and note["zh"]
    return note["code"], note["values"]


def test_a_plain_card(nvml: Stub, python: Path) -> None:
    clocked = card(1, free=46.5, total=48, memory_clock=9751, bus_width=384)
    planned = plan(python, nvml.says(card(0, free=23), clocked))
    assert planned.plan["devices"][1] == {
        "index": 1,
        "uuid": uuid(1),
        "name": "NVIDIA Toy 1",
        "total_bytes": 48 * GIB,
        "free_bytes": 46 * GIB + GIB // 2,
        "compute_capability": [8, 6],
        "driver": "580.95.05",
        "cuda_driver": [13, 0],
        "reserved_bytes": 0,
        "unified": False,
        "parent": None,
        "holders": [],
        "unusable": None,
        "memory_bytes_per_second": 936_096_000_000,
    }
    assert planned.plan["devices"][0]["memory_bytes_per_second"] is None
    assert planned.plan["host"]["gpu_note"] is None
    assert planned.plan["chosen"]["device"] == uuid(1)
    assert planned.plan["chosen"]["free_bytes"] == 46 * GIB + GIB // 2


# 1: no library


def no_library(python: Path, folder: Path, root: Path, **environment: str) -> dict[str, Any]:
    """What the probe says where the loader finds no NVML, below a root of our own."""
    (folder / LIBRARY).write_text("not a library")
    script = (
        "import dataclasses, json, pathlib, sys\nfrom entrypoint.machine.gpus import probe_gpus\n"
        "from entrypoint.messages.sentence import text\n"
        "gpus = probe_gpus(json.loads(sys.argv[2]), pathlib.Path(sys.argv[1]))\n"
        "print(json.dumps(dataclasses.asdict(text(gpus.why_none))))"
    )
    done = subprocess.run(
        [python, "-c", script, root, json.dumps(environment)],
        env=clean_environment(LD_LIBRARY_PATH=str(folder), PYTHONPATH=str(TOP)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(done.stdout))


def test_no_driver_anywhere(python: Path, tmp_path: Path) -> None:
    note = no_library(python, tmp_path, tmp_path)
    assert reason(note) == ("no_driver", {})
    assert (note["en"], note["zh"]) == ("No NVIDIA driver is visible here.", "这里看不到 NVIDIA 驱动。")


@pytest.mark.parametrize(
    ("environment", "code", "values"),
    [
        ({}, "no_gpu_in_container", {}),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, "hidden_from_container", {"value": "void"}),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, "hidden_from_container", {"value": "none"}),
        ({"NVIDIA_DRIVER_CAPABILITIES": "compute"}, "utility_missing", {"capabilities": "compute"}),
    ],
)
def test_a_driver_on_the_host_and_no_gpu_in_the_container(
    python: Path, tmp_path: Path, environment: dict[str, str], code: str, values: dict[str, str]
) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    assert reason(no_library(python, tmp_path, tmp_path, **environment)) == (code, values)


def test_the_way_to_a_gpu_in_the_container_is_in_the_sentence(python: Path, tmp_path: Path) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    note = no_library(python, tmp_path, tmp_path)
    for sentence in (note["en"], note["zh"]):
        assert "COMPOSE_FILE=compose.yaml:docker/compose.gpu.yaml" in sentence


# 3, 4, 5: the driver as a whole


@pytest.mark.parametrize(
    ("error", "code", "answer"),
    [
        (DRIVER_NOT_LOADED, "driver_not_loaded", None),
        (VERSION_MISMATCH, "driver_mismatch", "RM has detected an NVML/RM version mismatch"),
        (UNKNOWN, "driver_lost_gpus", "Unknown Error"),
        (10, "driver_timed_out", None),
        (8, "driver_failed", "Insufficient External Power"),
    ],
)
def test_the_driver_fails(nvml: Stub, python: Path, error: int, code: str, answer: str | None) -> None:
    planned = plan(python, nvml.says(card(), errors={"nvmlInitWithFlags": error}))
    assert planned.code == 0
    assert reason(planned.note) == (code, {"answer": answer} if answer else {})
    assert planned.plan["chosen"]["device"] == "cpu"


def test_a_required_gpu_that_is_not_seen_is_a_refusal_with_the_cause(nvml: Stub, python: Path) -> None:
    environment = nvml.says(card(), errors={"nvmlInitWithFlags": DRIVER_NOT_LOADED})
    planned = plan(python, environment, GLM_REQUIRE_GPU="1")
    assert planned.code == 3
    refusal = planned.plan["refusal"]
    assert refusal["why"]["code"] == "no_gpu_seen"
    assert refusal["why"]["values"]["note"]["en"].startswith("The NVIDIA driver is not loaded")
    assert refusal["env_line"] == "GLM_REQUIRE_GPU=0"


# 6, 7: one card of several


@pytest.mark.parametrize(
    ("call", "error", "code", "answer"),
    [
        ("nvmlDeviceGetHandleByIndex_v2", GPU_IS_LOST, "gpu_off_bus", "GPU is lost"),
        ("nvmlDeviceGetMemoryInfo_v2", RESET_REQUIRED, "gpu_off_bus", "GPU requires restart"),
        ("nvmlDeviceGetMemoryInfo_v2", NO_PERMISSION, "gpu_not_permitted", "Insufficient Permissions"),
        ("nvmlDeviceGetHandleByIndex_v2", UNKNOWN, "gpu_taken_away", "Unknown Error"),
        ("nvmlDeviceGetHandleByIndex_v2", 17, "gpu_failed", "The operating system has blocked the request"),
    ],
)
def test_a_card_that_fails_is_left_out_and_the_others_go_on(
    nvml: Stub, python: Path, call: str, error: int, code: str, answer: str
) -> None:
    planned = plan(python, nvml.says(card(0, errors={call: error}), card(1)))
    kind, values = reason(only(planned.notes))
    assert (kind, values["index"]) == (code, 0)
    assert answer in values["answer"]
    assert planned.uuids == [uuid(1)]
    assert planned.plan["chosen"]["device"] == uuid(1)


def test_the_only_card_fails(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0, errors={"nvmlDeviceGetHandleByIndex_v2": GPU_IS_LOST})))
    assert reason(planned.note) == ("gpu_off_bus", {"index": 0, "answer": "GPU is lost"})
    assert "Xid 79" in planned.note["en"]
    assert planned.plan["chosen"]["device"] == "cpu"


def test_no_card_at_all(nvml: Stub, python: Path) -> None:
    assert reason(plan(python, nvml.says()).note) == ("no_device", {})


# MIG


def divided(**more: Any) -> dict[str, Any]:
    """A card in MIG mode, whose own memory this container may not read."""
    parts = [instance(1, 4.5, 5), instance(2, 9, 10)]
    return card(0, errors={"nvmlDeviceGetMemoryInfo_v2": NO_PERMISSION}, **{"mig": parts, **more})


def test_mig_instances_stand_for_their_card(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(divided()))
    first, second = planned.plan["devices"]
    assert (first["uuid"], first["free_bytes"]) == (instance(1, 0, 0)["uuid"], int(4.5 * GIB))
    assert (second["parent"], second["compute_capability"]) == (uuid(0), [8, 6])
    assert planned.plan["chosen"]["device"] == second["uuid"]
    assert planned.plan["chosen"]["free_bytes"] == 9 * GIB


def test_a_divided_card_that_gives_no_instance(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(divided(mig=[])))
    assert reason(planned.note) == ("gpu_not_permitted", {"index": 0, "answer": "Insufficient Permissions"})
    assert "MIG UUID" in planned.note["en"] and "MIG UUID" in planned.note["zh"]


@pytest.mark.parametrize(
    "name", ["MIG-00000001-0000-5000-8000-000000000001", "MIG-00000001", f"MIG-{card(0)['uuid']}/1/0"]
)
def test_mig_by_name_whole_short_and_as_old_drivers_wrote_it(nvml: Stub, python: Path, name: str) -> None:
    planned = plan(python, nvml.says(divided()), CUDA_VISIBLE_DEVICES=name)
    assert planned.uuids == [instance(1, 0, 0)["uuid"]]
    assert planned.plan["chosen"]["device"] == instance(1, 0, 0)["uuid"]


# 8: unified memory


def test_unified_memory_is_planned_with_the_hosts(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0, memory=None, capability=[12, 1])))
    (device,) = planned.plan["devices"]
    assert (device["unified"], device["total_bytes"], device["free_bytes"]) == (True, None, None)
    chosen, host = planned.plan["chosen"], planned.plan["host"]
    assert chosen["device"] == uuid(0)
    assert chosen["free_bytes"] == host["available_bytes"]
    assert reason(only(planned.notes)) == ("unified_memory", {"index": 0, "available_bytes": host["available_bytes"]})


def test_what_a_driver_will_not_tell_is_never_fatal(nvml: Stub, python: Path) -> None:
    """A vGPU, WSL, an old driver: nothing but memory is told, and that by the older call."""
    untold = ("UUID", "Name", "CudaComputeCapability", "MigMode", "ComputeRunningProcesses_v3", "MemoryInfo_v2")
    errors = {f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in untold}
    system = ("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")
    environment = nvml.says(card(0, free=20, errors=errors), errors=dict.fromkeys(system, NOT_SUPPORTED))
    planned = plan(python, environment)
    (device,) = planned.plan["devices"]
    assert (device["uuid"], device["name"], device["driver"]) == ("0", "unknown", "unknown")
    assert (device["compute_capability"], device["cuda_driver"]) == (None, None)
    assert planned.plan["chosen"]["device"] == "0"
    assert planned.plan["chosen"]["free_bytes"] == 20 * GIB


# 9, 10, 11: what this torch can use


BUILT = ["7.5", "8.0", "9.0", "10.0", "12.0"]


@pytest.mark.parametrize(
    ("driver", "devices", "code", "values"),
    [
        (
            {"driver": "570.86.15", "cuda": 12080},
            {},
            "driver_too_old",
            {"driver": "570.86.15", "driver_cuda": "12.8", "torch_cuda": 13, "least_driver": "580"},
        ),
        (
            {},
            {"capability": [6, 1]},
            "capability_not_built",
            {"capability": "6.1", "version": "2.13.0+cu130", "built": BUILT, "is_older": True},
        ),
        (
            {},
            {"capability": [11, 0]},
            "capability_not_built",
            {"capability": "11.0", "version": "2.13.0+cu130", "built": BUILT, "is_older": False},
        ),
    ],
)
def test_a_card_that_this_torch_cannot_use(
    nvml: Stub, python: Path, driver: dict[str, Any], devices: dict[str, Any], code: str, values: dict[str, Any]
) -> None:
    environment = nvml.says(card(0, **devices), **driver)
    planned = plan(python, environment)
    assert planned.plan["chosen"]["device"] == "cpu"
    assert planned.rungs_on_gpu()
    for rung in planned.rungs_on_gpu():
        assert rung["verdict"] == "unsupported"
        assert reason(rung["reason"]["values"]["why"]) == (code, values)
    required = plan(python, environment, GLM_REQUIRE_GPU="1")
    assert required.code == 3
    assert planned.rungs_on_gpu()[0]["reason"]["en"] in required.plan["refusal"]["why"]["en"]


def test_the_driver_of_a_later_minor_version_is_enough(nvml: Stub, python: Path) -> None:
    assert plan(python, nvml.says(card(), cuda=13020)).plan["chosen"]["device"] == uuid(0)


def test_a_card_without_bf16(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0, capability=[7, 5])))
    assert planned.plan["chosen"]["precision"] == "fp16"
    assert reason(only(planned.notes)) == ("no_bf16", {"index": 0, "capability": "7.5"})


# 13: CUDA_VISIBLE_DEVICES; its grammar is tested in tests/unit/entrypoint/machine/test_cuda_visible_devices.py


def test_visible_devices_match_nothing(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0), card(1)), CUDA_VISIBLE_DEVICES="GPU-ffff")
    assert reason(planned.note) == ("no_gpu_named", {"value": "GPU-ffff", "uuids": [uuid(0), uuid(1)]})
    assert planned.note["en"] == f"CUDA_VISIBLE_DEVICES=GPU-ffff matches none of: {uuid(0)}, {uuid(1)}."
    assert planned.plan["chosen"]["device"] == "cpu"


def test_an_empty_one_hides_every_card(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0)), CUDA_VISIBLE_DEVICES="")
    assert reason(planned.note) == ("all_gpus_hidden", {"value": ""})


def test_only_what_is_visible_is_planned_with(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0), card(1, free=10)), CUDA_VISIBLE_DEVICES="1")
    assert planned.uuids == [uuid(1)]
    assert planned.plan["chosen"]["device"] == uuid(1)


# 14: memory that others hold


@pytest.mark.parametrize(
    ("processes", "count", "process_bytes", "en"),
    [
        (None, 0, None, "use 9.00 GiB of the 24.00 GiB of GPU 0 (perhaps by other containers)."),
        ([[4711, 6 * GIB]], 1, 6 * GIB, "(the driver lists 1 process with 6.00 GiB)."),
        ([[4711, (1 << 64) - 1], [1, (1 << 64) - 1]], 2, None, "(the driver lists 2 processes)."),
    ],
)
def test_memory_that_others_hold(
    nvml: Stub, python: Path, processes: Any, count: int, process_bytes: int | None, en: str
) -> None:
    planned = plan(python, nvml.says(card(0, free=15, total=24, processes=processes)))
    note = only(planned.notes)
    assert reason(note) == (
        "gpu_memory_in_use",
        {
            "index": 0,
            "used_bytes": 9 * GIB,
            "total_bytes": 24 * GIB,
            "processes": count,
            "process_bytes": process_bytes,
        },
    )
    assert en in note["en"]
    assert planned.plan["chosen"]["free_bytes"] == 15 * GIB


def test_what_the_driver_reserves_is_not_blamed_on_others(nvml: Stub, python: Path) -> None:
    memory = {"total": 24 * GIB, "free": 20 * GIB, "reserved": 4 * GIB}
    assert plan(python, nvml.says(card(0, memory=memory))).notes == []


def test_a_driver_that_hangs_is_not_waited_for(nvml: Stub, python: Path) -> None:
    program = (
        "import sys; from entrypoint import __main__; from entrypoint.machine import gpus; gpus.ANSWER_SECONDS = 0.5; "
    )
    done = subprocess.run(
        [python, "-c", f"{program}sys.exit(__main__.main(['plan', '--json']))"],
        env={**clean_environment(), **nvml.says(card(), hangs={"nvmlDeviceGetCount_v2": 1}), "PYTHONPATH": str(TOP)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    note = Planned(done.returncode, json.loads(done.stdout)).note
    assert reason(note) == ("driver_timed_out", {})
