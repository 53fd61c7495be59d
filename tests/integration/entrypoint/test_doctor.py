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
from entrypoint.doctor.check import Check, Group, examine
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
class Report:
    code: int
    verdict: str
    checks: list[dict[str, Any]]

    def one(self, name: str) -> tuple[str, str, str]:
        """Verdict, finding and remedy of the only check of that name, in English."""
        (check,) = [check for check in self.checks if check["name"] == name]
        assert check["finding"]["zh"]
        return check["verdict"], check["finding"]["en"], (check["remedy"] or {"en": ""})["en"]


def settings(folder: Path, **more: str) -> dict[str, str]:
    """Enough for everything to pass; a module of its name hides bitsandbytes, whose import takes seconds."""
    given = {
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
    return {**given, **more}


def doctor(
    environment: Mapping[str, str], python: str | Path = sys.executable, before: Callable[[], None] | None = None
) -> Report:
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
    return Report(done.returncode, report["verdict"], report["checks"])


def test_a_machine_with_all_that_is_needed_passes(nvml: Stub, python: Path, tmp_path: Path) -> None:
    report = doctor({**settings(tmp_path), **nvml.says(card(0, free=23))}, python)
    assert [check for check in report.checks if check["verdict"] != "pass"] == []
    assert (report.code, report.verdict) == (0, "pass")
    assert report.one("driver")[1] == "driver 580.95.05, CUDA up to 13.0: NVIDIA Toy 0"
    assert report.one("GPU 0 capability")[1] == "8.6 is in torch 2.13.0+cu130"
    assert report.one("GPU 0 memory")[1] == "23.00 GiB free of 24.00 GiB"
    assert report.one("bitsandbytes")[1] == "native library libquick.so"
    assert "RAM" in report.one("memory")[1]
    for name in ("python", "torch", "transformers", "bitsandbytes"):
        assert name in report.one("versions")[1]
    assert report.one("model")[1].startswith("demo: ")
    assert "the highest precision that fits" in report.one("plan")[1]
    assert not (tmp_path / "state").exists()


def test_no_gpu_is_fine_unless_one_is_required(tmp_path: Path, nvml_library: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    environment = settings(tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    verdict, finding, _ = doctor(environment).one("driver")
    if not Path("/proc/driver/nvidia/version").exists():
        assert verdict == "pass"
        assert "Berth runs on the CPU" in finding
    required = doctor({**environment, "GLM_REQUIRE_GPU": "1"})
    assert required.code == 2
    assert required.one("driver")[0] == "fail"
    assert "GLM_REQUIRE_GPU=0" in required.one("driver")[2]
    assert required.one("plan")[0] == "fail"


def test_gpus_with_faults(nvml: Stub, python: Path, tmp_path: Path) -> None:
    cards = (
        card(0, free=4),
        card(1, capability=[6, 1]),
        card(2, errors={"nvmlDeviceGetMemoryInfo_v2": GPU_IS_LOST}),
    )
    report = doctor({**settings(tmp_path), **nvml.says(*cards)}, python)
    assert report.code == 1
    lost = [check for check in report.checks if check["name"] == "driver" and check["verdict"] == "warn"]
    assert len(lost) == 1 and "Xid 79" in lost[0]["finding"]["en"]
    assert report.one("GPU 0 memory")[:2] == (
        "warn",
        "Other processes use 20.00 GiB of the 24.00 GiB of GPU 0 (perhaps by other containers).",
    )
    verdict, finding, remedy = report.one("GPU 1 capability")
    assert verdict == "warn" and "6.1 is not in torch" in finding and "TORCH=cuda" in remedy


def test_docker_without_the_toolkit(nvml: Stub, python: Path, tmp_path: Path) -> None:
    for name, verdict in (("docker", "warn"), ("nvidia-ctk", None)):
        (tmp_path / name).touch(mode=0o755)
        report = doctor({**settings(tmp_path), **nvml.says(card())}, python)
        assert [check["verdict"] for check in report.checks if check["name"] == "toolkit"] == (
            [verdict] * bool(verdict)
        )
        assert verdict is None or "Install nvidia-container-toolkit" in report.one("toolkit")[2]


def test_a_driver_too_old_fails_where_a_gpu_is_required(nvml: Stub, python: Path, tmp_path: Path) -> None:
    environment = {**settings(tmp_path, GLM_REQUIRE_GPU="1"), **nvml.says(card(), driver="550.54", cuda=12040)}
    report = doctor(environment, python)
    assert report.code == 2
    verdict, finding, remedy = report.one("GPU 0 capability")
    assert verdict == "fail" and "driver 580 or newer" in finding and "Update the driver" in remedy


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        report = doctor(settings(tmp_path, GLM_PORT=str(port)))
    assert report.code == 2
    verdict, finding, remedy = report.one("port")
    assert verdict == "fail" and f"GLM_PORT={port}: in use" in finding and "another GLM_PORT" in remedy


def test_a_port_that_the_running_berth_holds(tmp_path: Path) -> None:
    state, lock = open_state(tmp_path / "state")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        report = doctor(settings(tmp_path, GLM_STATE_DIR=str(state.folder), GLM_PORT=str(taken.getsockname()[1])))
    os.close(lock)
    assert report.code == 0
    assert "is used by the Berth that runs here" in report.one("port")[1]


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
    assert report.code == 2
    verdict, finding, remedy = report.one("GLM_STATE_DIR")
    assert verdict == "fail"
    assert f"(uid {owner}), Berth runs as uid {os.geteuid()}" in finding
    assert f"chown -R {os.geteuid()} {tmp_path / 'state'}" in remedy
    assert report.one("HF_HOME")[0] == "warn"


def test_a_hub_that_nobody_answers_for(tmp_path: Path) -> None:
    unheard = settings(tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=SILENT_HUB)
    local = doctor(unheard)
    assert local.code == 1
    assert local.one("hub")[:2][0] == "warn"
    assert f"{SILENT_HUB} does not answer" in local.one("hub")[1]
    assert "HF_ENDPOINT=" in local.one("hub")[2]
    remote = doctor({**unheard, "GLM_MODEL": "zai-org/chatglm3-6b"})
    assert remote.code == 2
    assert remote.one("hub")[0] == remote.one("model")[0] == "fail"
    assert "the hub was not reached" in remote.one("model")[1]


def test_a_default_that_cannot_be_had_is_a_warning_and_the_demo_is_planned(tmp_path: Path) -> None:
    unheard = settings(tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=SILENT_HUB, BERTH_DEFAULT_MODEL="zai-org/chatglm3-6b")
    del unheard["GLM_MODEL"]
    report = doctor(unheard)
    assert report.code == 1
    assert [check["verdict"] for check in report.checks if check["name"] == "model"] == ["warn", "pass"]
    assert report.one("plan")[0] == "pass"


def test_a_model_that_cannot_be_read_and_one_that_does_not_fit(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    verdict, finding, _ = doctor(settings(tmp_path, GLM_MODEL=str(broken))).one("model")
    assert verdict == "fail" and str(broken / "config.json") in finding
    absent = doctor(settings(tmp_path, GLM_MODEL="/nowhere"))
    assert absent.one("model")[0] == "fail"
    short = doctor(settings(tmp_path, GLM_REQUIRE_GPU="1", GLM_MODEL="demo", CUDA_VISIBLE_DEVICES=""))
    assert short.one("plan")[0] == "fail"
    assert short.one("plan")[2].endswith("GLM_REQUIRE_GPU=0")


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
    verdict, finding, remedy = doctor(environment).one("bitsandbytes")
    assert verdict == "warn" and "libcudart.so.13: cannot open" in finding and "int8 and int4 may not work" in remedy
    module.write_text("raise ImportError('no such thing')\n")
    assert "can't be imported: ImportError: no such thing" in doctor(environment).one("bitsandbytes")[1]


def test_the_real_bitsandbytes_has_its_library(tmp_path: Path) -> None:
    report = doctor({**settings(tmp_path), "PYTHONPATH": str(TOP)})
    assert report.one("bitsandbytes")[:2] == ("pass", "native library libbitsandbytes_cpu.so")


def test_plain_lines_without_a_terminal_and_a_table_in_one(tmp_path: Path) -> None:
    environment = clean_environment(**settings(tmp_path, GLM_REQUIRE_GPU="1", CUDA_VISIBLE_DEVICES=""))
    command = [sys.executable, "-m", "entrypoint", "doctor"]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=110)
    assert done.returncode == 2
    said = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert any(line.startswith("fail  driver") for line in said)
    assert any(line.lstrip().startswith("-> With GLM_REQUIRE_GPU=0") for line in said)
    assert said[-1].endswith("2 failed, 0 with a warning")
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
    groups = (Group("slow", 0.05, hangs), Group("odd", 10, breaks), Group("fine", 10, lambda _: [fine]))
    slow, odd, last = examine(Settings(), groups)
    assert (slow.verdict, slow.finding.en) == ("fail", "timed out after 0 s")
    assert (odd.verdict, odd.finding.en) == ("fail", "the check broke: RuntimeError: odd")
    assert last == fine
    assert lines([last])[-1] == "all checks pass: 1"
