"""`doctor`, by real causes: the command in a process of its own, and what it says and returns."""

from __future__ import annotations

import ctypes
import json
import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.contract.plan import Text
from entrypoint.commands.doctor import lines
from entrypoint.doctor.check import Check, CheckGroup, examine
from entrypoint.settings.settings import Settings
from entrypoint.state.state_dir import open_state
from tests.nvml_stub import CUDA_13, GPU_IS_LOST, Stub, card, python_with_torch_facts
from tests.processes.service import TOP, clean_environment, free_port

SILENT_HUB = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its notes say that torch is a CUDA build."""
    return python_with_torch_facts(tmp_path_factory.mktemp("python") / "venv", CUDA_13)


@dataclass(frozen=True)
class CheckResult:
    """One check: reason codes, values, and the sentences in English."""

    verdict: str
    code: str
    values: dict[str, Any]
    finding: str
    remedy_code: str
    remedy: str


@dataclass(frozen=True)
class DoctorReport:
    exit_code: int
    verdict: str
    checks: list[dict[str, Any]]

    def one(self, name: str) -> CheckResult:
        """The only check of that name."""
        (check,) = [check for check in self.checks if check["name"] == name]
        finding, remedy = check["finding"], check["remedy"] or {"en": "", "code": "", "values": {}}
        assert finding["zh"]
        return CheckResult(
            check["verdict"], finding["code"], finding["values"], finding["en"], remedy["code"], remedy["en"]
        )


def settings(folder: Path, **more: str) -> dict[str, str]:
    """Enough for everything to pass; a module of its name hides bitsandbytes, whose import takes seconds."""
    environment = {
        "GLM_MODEL": "demo",
        "GLM_STATE_DIR": str(folder / "state"),
        "HF_HOME": str(folder / "hf"),
        "GLM_PORT": str(free_port()),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{folder}:{TOP}",
        "PATH": str(folder),
    }
    quick = folder / "bitsandbytes"
    quick.mkdir(exist_ok=True)
    (quick / "__init__.py").touch()
    (quick / "cextension.py").write_text(
        "from types import SimpleNamespace as Library\n\nlib = Library(_lib=Library(_name='/x/libquick.so'))\n"
    )
    return {**environment, **more}


def doctor(
    environment: Mapping[str, str], python: str | Path = sys.executable, before: Callable[[], None] | None = None
) -> DoctorReport:
    done = subprocess.run(
        [python, "-m", "entrypoint", "doctor", "--json"],
        env=clean_environment(**environment),
        cwd="/",
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout)
    return DoctorReport(done.returncode, report["verdict"], report["checks"])


def test_a_machine_with_all_that_is_needed_passes(nvml: Stub, python: Path, tmp_path: Path) -> None:
    report = doctor({**settings(tmp_path), **nvml.says(card(0, free=23))}, python)
    assert [check for check in report.checks if check["verdict"] != "pass"] == []
    assert (report.exit_code, report.verdict) == (0, "pass")
    assert report.one("driver").values == {"driver": "580.95.05", "cuda": "13.0", "gpus": ["NVIDIA Toy 0"]}
    assert report.one("driver").finding == "driver 580.95.05, CUDA up to 13.0: NVIDIA Toy 0"
    assert report.one("GPU 0 capability").code == "capability_supported"
    assert report.one("GPU 0 capability").values == {"capability": "8.6", "torch": "2.13.0+cu130"}
    assert report.one("GPU 0 memory").values == {"free_bytes": 23 << 30, "total_bytes": 24 << 30}
    assert report.one("bitsandbytes").values == {"library": "libquick.so"}
    assert report.one("memory").code == "host_memory"
    packages = [package.partition(" ")[0] for package in report.one("versions").values["packages"]]
    assert {"python", "torch", "transformers", "bitsandbytes"} <= set(packages)
    assert report.one("model").values["model"] == "demo"
    assert "the highest precision that fits" in report.one("plan").finding
    assert not (tmp_path / "state").exists()


def test_no_gpu_is_fine_unless_one_is_required(tmp_path: Path, nvml_library: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    environment = settings(tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    driver = doctor(environment).one("driver")
    if not Path("/proc/driver/nvidia/version").exists():
        assert driver.verdict == "pass"
        assert "Berth runs on the CPU" in driver.finding
    required = doctor({**environment, "GLM_REQUIRE_GPU": "1"})
    assert required.exit_code == 2
    assert required.one("driver").verdict == "fail"
    assert required.one("driver").remedy_code == "run_on_cpu"
    assert required.one("plan").verdict == "fail"


def test_gpus_with_faults(nvml: Stub, python: Path, tmp_path: Path) -> None:
    cards = (
        card(0, free=4),
        card(1, capability=[6, 1]),
        card(2, errors={"nvmlDeviceGetMemoryInfo_v2": GPU_IS_LOST}),
    )
    report = doctor({**settings(tmp_path), **nvml.says(*cards)}, python)
    assert report.exit_code == 1
    lost = [check for check in report.checks if check["name"] == "driver" and check["verdict"] == "warn"]
    assert len(lost) == 1 and "Xid 79" in lost[0]["finding"]["en"]
    memory = report.one("GPU 0 memory")
    assert (memory.verdict, memory.remedy_code) == ("warn", "free_gpu_memory") and "20.00 GiB" in memory.finding
    capability = report.one("GPU 1 capability")
    assert (capability.verdict, capability.remedy_code) == ("warn", "update_driver_or_torch")
    assert "6.1" in capability.finding


def test_docker_without_the_toolkit(nvml: Stub, python: Path, tmp_path: Path) -> None:
    for name, verdict in (("docker", "warn"), ("nvidia-ctk", None)):
        (tmp_path / name).touch(mode=0o755)
        report = doctor({**settings(tmp_path), **nvml.says(card())}, python)
        assert [check["verdict"] for check in report.checks if check["name"] == "toolkit"] == (
            [verdict] * bool(verdict)
        )
        assert verdict is None or report.one("toolkit").remedy_code == "install_toolkit"


def test_a_driver_too_old_fails_where_a_gpu_is_required(nvml: Stub, python: Path, tmp_path: Path) -> None:
    environment = {**settings(tmp_path, GLM_REQUIRE_GPU="1"), **nvml.says(card(), driver="550.54", cuda=12040)}
    report = doctor(environment, python)
    assert report.exit_code == 2
    capability = report.one("GPU 0 capability")
    assert (capability.verdict, capability.remedy_code) == ("fail", "update_driver_or_torch")
    assert "580" in capability.finding


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        report = doctor(settings(tmp_path, GLM_PORT=str(port)))
    assert report.exit_code == 2
    result = report.one("port")
    assert (result.verdict, result.code, result.remedy_code) == ("fail", "invalid_setting", "change_port")
    assert f"GLM_PORT={port}" in result.values["error"]


def test_a_port_that_the_running_berth_holds(tmp_path: Path) -> None:
    state, lock = open_state(tmp_path / "state")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        report = doctor(settings(tmp_path, GLM_STATE_DIR=str(state.folder), GLM_PORT=str(taken.getsockname()[1])))
    os.close(lock)
    assert report.exit_code == 0
    assert report.one("port").code == "port_used_by_berth"


def without_roots_privilege() -> None:
    """Runs between fork and exec: root then needs permission like anybody else (prctl(2), capabilities(7))."""
    drop_from_bounding_set, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    environment = settings(tmp_path)
    owner = 4711 if os.geteuid() == 0 else os.geteuid()
    for name in ("state", "hf"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, owner, -1)
        (tmp_path / name).chmod(0o555)
    report = doctor(environment, before=without_roots_privilege)
    assert report.exit_code == 2
    state, folder = report.one("GLM_STATE_DIR"), str(tmp_path / "state")
    assert (state.verdict, state.code, state.remedy_code) == ("fail", "not_writable", "make_writable")
    assert (state.values["folder"], state.values["parent"]) == (folder, folder)
    assert (state.values["owner_uid"], state.values["uid"]) == (owner, os.geteuid())
    assert f"chown -R {os.geteuid()} {folder}" in state.remedy
    assert report.one("HF_HOME").verdict == "warn"


def test_a_hub_that_nobody_answers_for(tmp_path: Path) -> None:
    unheard = settings(tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=SILENT_HUB)
    local = doctor(unheard)
    assert local.exit_code == 1
    hub = local.one("hub")
    assert (hub.verdict, hub.code, hub.values["endpoint"]) == ("warn", "hub_unreachable", SILENT_HUB)
    assert hub.remedy_code == "change_endpoint" and hub.remedy.endswith("HF_ENDPOINT=https://huggingface.co")
    remote = doctor({**unheard, "GLM_MODEL": "zai-org/chatglm3-6b"})
    assert remote.exit_code == 2
    assert remote.one("hub").verdict == remote.one("model").verdict == "fail"
    assert remote.one("model").code == "model_not_checked"


def test_a_default_that_cannot_be_had_is_a_warning_and_the_demo_is_planned(tmp_path: Path) -> None:
    unheard = settings(tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=SILENT_HUB, BERTH_DEFAULT_MODEL="zai-org/chatglm3-6b")
    del unheard["GLM_MODEL"]
    report = doctor(unheard)
    assert report.exit_code == 1
    assert [check["verdict"] for check in report.checks if check["name"] == "model"] == ["warn", "pass"]
    assert report.one("plan").verdict == "pass"


def test_a_model_that_cannot_be_read_and_one_that_does_not_fit(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    unreadable = doctor(settings(tmp_path, GLM_MODEL=str(broken))).one("model")
    assert (unreadable.verdict, unreadable.code) == ("fail", "invalid_checkpoint")
    assert str(broken / "config.json") in unreadable.values["error"]
    absent = doctor(settings(tmp_path, GLM_MODEL="/nowhere")).one("model")
    assert (absent.verdict, absent.code) == ("fail", "invalid_setting")
    short = doctor(settings(tmp_path, GLM_REQUIRE_GPU="1", GLM_MODEL="demo", CUDA_VISIBLE_DEVICES=""))
    assert short.one("plan").verdict == "fail"
    assert short.one("plan").remedy.endswith("GLM_REQUIRE_GPU=0")


def test_a_wrong_setting_ends_it_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "entrypoint", "doctor"],
        env=clean_environment(**settings(tmp_path, GLM_PRECISION="int3")),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "GLM_PRECISION=int3" in done.stderr


def test_bitsandbytes_that_cannot_load_is_told(tmp_path: Path) -> None:
    environment = settings(tmp_path)
    module = tmp_path / "bitsandbytes" / "cextension.py"
    module.write_text("class Mock:\n    pass\n\n\nlib = Mock()\nlib.error_msg = 'libcudart.so.13: cannot open'\n")
    result = doctor(environment).one("bitsandbytes")
    assert (result.verdict, result.code) == ("warn", "bitsandbytes_not_loaded")
    assert result.values == {"error": "libcudart.so.13: cannot open"}
    assert result.remedy_code == "reinstall_bitsandbytes"
    module.write_text("raise ImportError('no such thing')\n")
    result = doctor(environment).one("bitsandbytes")
    assert result.code == "bitsandbytes_not_importable"
    assert result.values == {"error": "ImportError: no such thing"}


def test_the_real_bitsandbytes_has_its_library(tmp_path: Path) -> None:
    report = doctor({**settings(tmp_path), "PYTHONPATH": str(TOP)})
    result = report.one("bitsandbytes")
    assert (result.verdict, result.values) == ("pass", {"library": "libbitsandbytes_cpu.so"})


def test_plain_lines_without_a_terminal_and_a_table_in_one(tmp_path: Path) -> None:
    environment = clean_environment(**settings(tmp_path, GLM_REQUIRE_GPU="1", CUDA_VISIBLE_DEVICES=""))
    command = [sys.executable, "-m", "entrypoint", "doctor"]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=110)
    assert done.returncode == 2
    said = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert any(line.startswith("fail  driver") for line in said)
    assert any(line.lstrip().startswith("-> Set GLM_REQUIRE_GPU=0") for line in said)
    assert said[-1].endswith("2 failed, 0 warned")
    text = in_a_terminal(command, {**environment, "TERM": "xterm", "COLUMNS": "100"})
    assert "\x1b[" in text and "✗" in text and "→" in text


def in_a_terminal(command: list[str], environment: Mapping[str, str]) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=environment, cwd="/", stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        process.wait(timeout=110)
        os.close(ours)
    return said.decode()


def test_a_check_that_hangs_or_breaks_is_one_that_failed() -> None:
    def hangs(_: Settings) -> list[Check]:
        time.sleep(600)
        return []

    def breaks(_: Settings) -> list[Check]:
        raise RuntimeError("odd")

    fine = Check("fine", "pass", Text("well", "好"))
    groups = (CheckGroup("slow", 0.05, hangs), CheckGroup("odd", 10, breaks), CheckGroup("fine", 10, lambda _: [fine]))
    slow, odd, last = examine(Settings(), groups)
    assert (slow.verdict, slow.finding.code, slow.finding.values) == ("fail", "check_timed_out", {"seconds": 0.05})
    assert (odd.verdict, odd.finding.code) == ("fail", "check_broke")
    assert odd.finding.values == {"error": "RuntimeError: odd"}
    assert last == fine
    assert lines([last])[-1] == "all 1 checks passed"
