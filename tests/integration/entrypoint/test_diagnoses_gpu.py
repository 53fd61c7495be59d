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
    def note(self) -> dict[str, str]:
        """Why there is no GPU."""
        assert self.plan["host"]["gpu_note"], self.plan["devices"]
        return dict(self.plan["host"]["gpu_note"])

    @property
    def notes(self) -> list[dict[str, str]]:
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


def only(notes: list[dict[str, str]]) -> dict[str, str]:
    (note,) = notes
    return note


def test_a_plain_card(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0, free=23), card(1, free=46.5, total=48)))
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
    }
    assert planned.plan["host"]["gpu_note"] is None
    assert planned.plan["chosen"]["device"] == uuid(1)
    assert planned.plan["chosen"]["free_bytes"] == 46 * GIB + GIB // 2


# 1: no library


def no_library(python: Path, folder: Path, root: Path, **environment: str) -> dict[str, str]:
    """What the probe says where the loader finds no NVML, below a root of our own."""
    (folder / LIBRARY).write_text("not a library")
    script = (
        "import dataclasses, json, pathlib, sys\nfrom entrypoint.machine.gpus import probe_gpus\n"
        "gpus = probe_gpus(json.loads(sys.argv[2]), pathlib.Path(sys.argv[1]))\n"
        "print(json.dumps(dataclasses.asdict(gpus.none)))"
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
    said = no_library(python, tmp_path, tmp_path)
    assert (said["en"], said["zh"]) == ("No NVIDIA driver is visible here.", "这里看不到 NVIDIA 驱动。")


@pytest.mark.parametrize(
    ("environment", "en", "zh"),
    [
        (
            {},
            "was given no GPU: start with COMPOSE_FILE=compose.yaml:docker/compose.gpu.yaml",
            "没有把显卡交给这个容器",
        ),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, "NVIDIA_VISIBLE_DEVICES=void keeps every GPU from this container", "去掉"),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, "NVIDIA_VISIBLE_DEVICES=none keeps every GPU from this container", "去掉"),
        ({"NVIDIA_DRIVER_CAPABILITIES": "compute"}, "CAPABILITIES=compute must include utility", "必须包含 utility"),
    ],
)
def test_a_driver_on_the_host_and_no_gpu_in_the_container(
    python: Path, tmp_path: Path, environment: dict[str, str], en: str, zh: str
) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    said = no_library(python, tmp_path, tmp_path, **environment)
    assert en in said["en"]
    assert zh in said["zh"]


# 3, 4, 5: the driver as a whole


@pytest.mark.parametrize(
    ("code", "en", "zh"),
    [
        (DRIVER_NOT_LOADED, "The NVIDIA driver is not loaded: run nvidia-smi on the host.", "没有加载"),
        (VERSION_MISMATCH, "The NVIDIA driver was upgraded without a reboot", "请重启主机"),
        (UNKNOWN, "A container that had its GPU lost it (systemd daemon-reload): recreate it.", "请重新创建容器"),
        (10, "The NVIDIA driver does not answer: look into dmesg on the host", "没有响应"),
        (8, 'The NVIDIA driver answers: "', "nvidia-smi"),
    ],
)
def test_the_driver_fails(nvml: Stub, python: Path, code: int, en: str, zh: str) -> None:
    planned = plan(python, nvml.says(card(), errors={"nvmlInitWithFlags": code}))
    assert planned.code == 0
    assert en in planned.note["en"]
    assert zh in planned.note["zh"]
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
    ("call", "code", "en", "zh"),
    [
        ("nvmlDeviceGetHandleByIndex_v2", GPU_IS_LOST, 'GPU 0 is left out: "GPU is lost"', "Xid 79"),
        ("nvmlDeviceGetMemoryInfo_v2", RESET_REQUIRED, 'GPU 0 is left out: "GPU requires restart"', "dmesg"),
        ("nvmlDeviceGetMemoryInfo_v2", NO_PERMISSION, "give the container an instance by its MIG UUID", "MIG UUID"),
        ("nvmlDeviceGetHandleByIndex_v2", UNKNOWN, "lost it (systemd daemon-reload): recreate it", "重新创建容器"),
        ("nvmlDeviceGetHandleByIndex_v2", 17, "GPU 0 is left out: the driver answers", "nvidia-smi"),
    ],
)
def test_a_card_that_fails_is_left_out_and_the_others_go_on(
    nvml: Stub, python: Path, call: str, code: int, en: str, zh: str
) -> None:
    planned = plan(python, nvml.says(card(0, errors={call: code}), card(1)))
    note = only(planned.notes)
    assert en in note["en"]
    assert zh in note["zh"]
    assert planned.uuids == [uuid(1)]
    assert planned.plan["chosen"]["device"] == uuid(1)


def test_the_only_card_fails(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0, errors={"nvmlDeviceGetHandleByIndex_v2": GPU_IS_LOST})))
    assert "fell off the bus (Xid 79?)" in planned.note["en"]
    assert planned.plan["chosen"]["device"] == "cpu"


def test_no_card_at_all(nvml: Stub, python: Path) -> None:
    assert plan(python, nvml.says()).note["en"] == "The NVIDIA driver sees no GPU."


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
    assert 'it can\'t be read from here ("Insufficient Permissions")' in planned.note["en"]


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
    note = only(planned.notes)
    assert "GPU 0 has no memory of its own (unified memory): planning with" in note["en"]
    assert "统一内存" in note["zh"]


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


@pytest.mark.parametrize(
    ("facts", "devices", "en", "zh"),
    [
        (
            {"driver": "570.86.15", "cuda": 12080},
            {},
            "driver 570.86.15 supports CUDA 12.8; this torch needs 13.x: driver 580 or newer",
            "请安装 580 或更新的驱动",
        ),
        (
            {},
            {"capability": [6, 1]},
            "compute capability 6.1 is not in torch 2.13.0+cu130, which is built for 7.5, 8.0, 9.0, 10.0, 12.0",
            "不支持计算能力 6.1",
        ),
        ({}, {"capability": [11, 0]}, "compute capability 11.0 is not in torch", "不支持计算能力 11.0"),
    ],
)
def test_a_card_that_this_torch_cannot_use(
    nvml: Stub, python: Path, facts: dict[str, Any], devices: dict[str, Any], en: str, zh: str
) -> None:
    environment = nvml.says(card(0, **devices), **facts)
    planned = plan(python, environment)
    assert planned.plan["chosen"]["device"] == "cpu"
    assert planned.rungs_on_gpu()
    for rung in planned.rungs_on_gpu():
        assert rung["verdict"] == "unsupported"
        assert en in rung["reason"]["en"]
        assert zh in rung["reason"]["zh"]
    required = plan(python, environment, GLM_REQUIRE_GPU="1")
    assert required.code == 3
    assert en in required.plan["refusal"]["why"]["en"]


def test_the_driver_of_a_later_minor_version_is_enough(nvml: Stub, python: Path) -> None:
    assert plan(python, nvml.says(card(), cuda=13020)).plan["chosen"]["device"] == uuid(0)


def test_a_card_without_bf16(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0, capability=[7, 5])))
    assert planned.plan["chosen"]["precision"] == "fp16"
    note = only(planned.notes)
    assert "GPU 0 (compute capability 7.5) computes no bf16: 16 bits are float16 there" in note["en"]
    assert "不支持 bf16" in note["zh"]


# 13: CUDA_VISIBLE_DEVICES; its grammar is tested in tests/unit/entrypoint/machine/test_cuda_visible_devices.py


def test_visible_devices_match_nothing(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0), card(1)), CUDA_VISIBLE_DEVICES="GPU-ffff")
    assert planned.note["en"] == f"CUDA_VISIBLE_DEVICES=GPU-ffff matches none of: {uuid(0)}, {uuid(1)}."
    assert planned.note["zh"].startswith("CUDA_VISIBLE_DEVICES=GPU-ffff 与这些都不匹配")
    assert planned.plan["chosen"]["device"] == "cpu"


def test_an_empty_one_hides_every_card(nvml: Stub, python: Path) -> None:
    assert "hides every GPU" in plan(python, nvml.says(card(0)), CUDA_VISIBLE_DEVICES="").note["en"]


def test_only_what_is_visible_is_planned_with(nvml: Stub, python: Path) -> None:
    planned = plan(python, nvml.says(card(0), card(1, free=10)), CUDA_VISIBLE_DEVICES="1")
    assert planned.uuids == [uuid(1)]
    assert planned.plan["chosen"]["device"] == uuid(1)


# 14: memory that others hold


@pytest.mark.parametrize(
    ("processes", "en", "zh"),
    [
        (None, "9.00 GiB of GPU 0's 24.00 GiB is held by others (perhaps other containers).", "也许是其他容器"),
        ([[4711, 6 * GIB]], "held by others (the driver names 1 process with 6.00 GiB).", "1 个进程，共 6.00 GiB"),
        ([[4711, (1 << 64) - 1], [1, (1 << 64) - 1]], "(the driver names 2 processes).", "（驱动列出 2 个进程）"),
    ],
)
def test_memory_that_others_hold(nvml: Stub, python: Path, processes: Any, en: str, zh: str) -> None:
    planned = plan(python, nvml.says(card(0, free=15, total=24, processes=processes)))
    note = only(planned.notes)
    assert en in note["en"]
    assert zh in note["zh"]
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
    assert note["en"].startswith("The NVIDIA driver does not answer: look into dmesg on the host")
    assert note["zh"].startswith("NVIDIA 驱动没有响应")
