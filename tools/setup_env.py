"""Makes the environment that Berth runs in: a venv with pinned packages and the PyTorch build that fits the machine.

`make` and the Dockerfile call it before anything is installed, so it uses the standard library only. Running it again
costs nothing if nothing changed, and repairs what an interrupted run left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# Increased when the way of installing changes, so that existing environments are updated.
SCHEME = 1

# The supervisor plans without importing torch, so the facts of the build that it needs are written to a file here.
WRITE_TORCH_FACTS = """
import json, pathlib, sys, torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda, "arches": torch.cuda.get_arch_list()}
pathlib.Path(sys.prefix, "berth-torch.json").write_text(json.dumps(facts) + "\\n", encoding="utf-8")
"""


class SetupError(Exception):
    """The cause of a failed set-up, in one line for the user."""


@dataclass(frozen=True)
class Environment:
    """A venv and the files that set-up keeps in it."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def facts(self) -> Path:
        return self.path / "berth-torch.json"

    @property
    def stamp(self) -> Path:
        return self.path / "berth-setup.json"

    @property
    def unfinished(self) -> Path:
        return self.path / "berth-unfinished"

    def stamped(self) -> dict[str, str]:
        """What the last finished set-up installed; empty if none finished."""
        if not (self.python.exists() and self.facts.exists()) or self.unfinished.exists():
            return {}
        try:
            stamp = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}


@dataclass(frozen=True)
class Wanted:
    """The packages that an environment needs, as fingerprints to compare with its stamp."""

    packages: Mapping[str, str]
    torch: str
    torch_build: str

    def met_by(self, stamp: Mapping[str, str]) -> bool:
        return self.packages_met_by(stamp) and stamp.get("torch") == self.torch

    def packages_met_by(self, stamp: Mapping[str, str]) -> bool:
        return all(stamp.get(name) == fingerprint for name, fingerprint in self.packages.items())


def torch_version(requirements: Path) -> str:
    """The version that runtime.in pins; its exact files depend on the build."""
    version = re.search(r"^torch==(\S+)$", (requirements / "runtime.in").read_text(encoding="utf-8"), re.MULTILINE)
    if not version:
        raise SetupError(f"{requirements / 'runtime.in'} has no line 'torch==VERSION'.")
    return version[1]


def nvidia_driver_present(proc: Path = Path("/proc/driver/nvidia/version")) -> bool:
    if proc.exists() or shutil.which("nvidia-smi"):
        return True
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def choose_build(option: str, stamp: Mapping[str, str], system: str = sys.platform) -> str:
    """`cpu` or `cuda`. `auto` keeps a CUDA build without a driver: it runs on the CPU too, and is a large download."""
    if system != "linux":
        return "plain"  # the registry's build for macOS is the only one
    if option != "auto":
        return option
    return "cuda" if stamp.get("torch_build") == "cuda" or nvidia_driver_present() else "cpu"


def wanted(requirements: Path, build: str, dev: bool) -> Wanted:
    def fingerprint(name: str) -> str:
        return hashlib.sha256(f"{SCHEME}\n".encode() + (requirements / name).read_bytes()).hexdigest()

    names = ["runtime.txt", "dev.txt"] if dev else ["runtime.txt"]
    torch = f"{torch_version(requirements)}+cpu" if build == "cpu" else fingerprint("torch.txt")
    return Wanted({name: fingerprint(name) for name in names}, torch, build)


def run(argv: Sequence[str | Path], quiet: bool = False) -> bool:
    """Runs a command; returns whether it succeeded. With `quiet`, its output is dropped, since it may fail."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run([str(arg) for arg in argv], stdout=output, stderr=output, check=False).returncode == 0


def make_venv(env: Environment) -> None:
    """Makes the venv, again if an earlier run was interrupted: pip can't repair a half-installed package."""
    if env.unfinished.exists() or not env.python.exists():
        if env.path.exists() and any(env.path.iterdir()) and not (env.path / "pyvenv.cfg").exists():
            raise SetupError(
                f"{env.path} exists but is not a virtual environment: move it away or name another one with --venv."
            )
        if not run([sys.executable, "-m", "venv", "--clear", env.path]):
            raise SetupError(
                "Python's venv module failed: on Debian and Ubuntu install python3-venv, then run this again."
            )
    env.unfinished.touch()


def pip(env: Environment, *args: str | Path, quiet: bool = False) -> bool:
    progress = "on" if sys.stderr.isatty() else "off"
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", progress]
    return run([env.python, "-m", "pip", "install", *options, "--no-deps", *args], quiet=quiet)


def install_packages(env: Environment, requirements: Path, dev: bool) -> None:
    name = "dev.txt" if dev else "runtime.txt"
    print(f"Installing the packages of requirements/{name}", flush=True)
    if not pip(env, "-qq", "--require-hashes", "-r", requirements / name):
        raise SetupError(
            "pip could not install the packages (see above): is the package index reachable? Then run this again."
        )


def install_torch(env: Environment, requirements: Path, build: str) -> None:
    version = torch_version(requirements)
    print(f"Installing PyTorch {version} ({'CPU' if build == 'cpu' else 'default'} build)", flush=True)
    if build != "cpu":
        if not pip(env, "--require-hashes", "-r", requirements / "torch.txt"):
            raise SetupError(
                "pip could not install PyTorch (see above): is the package index reachable? Then run this again."
            )
        return
    # First from pip's configured sources: machines that can't reach PyTorch's index have a wheel there.
    if pip(env, "--retries", "1", f"torch=={version}+cpu", quiet=True):
        return
    if not pip(env, "--index-url", TORCH_CPU_INDEX, f"torch=={version}+cpu"):
        raise SetupError(
            f"No CPU build of PyTorch {version} for Python {platform.python_version()} on {platform.machine()}: "
            f"make {TORCH_CPU_INDEX} reachable or name a folder with its wheel in PIP_FIND_LINKS, then run this again."
        )


def write_stamp(env: Environment, before: Mapping[str, str], want: Wanted) -> None:
    stamp = {**before, **want.packages, "torch": want.torch, "torch_build": want.torch_build}
    draft = env.stamp.with_suffix(".tmp")
    draft.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    draft.replace(env.stamp)
    env.unfinished.unlink()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lets one set-up of an environment run at a time: the second one waits."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_up(env: Environment, requirements: Path, torch: str, dev: bool) -> None:
    stamp = env.stamped()
    build = choose_build(torch, stamp)
    want = wanted(requirements, build, dev)
    if want.met_by(stamp):
        return
    print(f"Setting up {env.path}", flush=True)
    make_venv(env)
    if not want.packages_met_by(stamp):
        install_packages(env, requirements, dev)
    if stamp.get("torch") != want.torch:
        install_torch(env, requirements, build)
    if not run([env.python, "-c", WRITE_TORCH_FACTS]):
        raise SetupError("PyTorch was installed but cannot be imported (see above).")
    write_stamp(env, stamp, want)


def main(argv: Sequence[str] | None = None) -> None:
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise SetupError(f"Berth needs Python 3.11 or newer; {sys.executable} is {platform.python_version()}.")
    parser = argparse.ArgumentParser(description="Makes the Python environment that Berth runs in.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="its folder (default: .venv)")
    parser.add_argument("--torch", choices=["auto", "cpu", "cuda"], default="auto", help="the build of PyTorch")
    parser.add_argument("--dev", action="store_true", help="also install what tests and checks need")
    options = parser.parse_args(argv)
    env = Environment(options.venv.absolute())
    with alone(env.path.parent):
        set_up(env, ROOT / "requirements", options.torch, options.dev)


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit("set-up: interrupted; run it again to continue.")
