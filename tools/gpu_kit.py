"""Packs what the GPU checks need on a machine with Python 3.12, torch, transformers and accelerate, but no index.

    python tools/gpu_kit.py [--python-version 3.12] [--folder .gpu-kit]

The pinned packages of requirements/dev.txt are unpacked into one folder, to be copied beside the checkout; of
bitsandbytes only the libraries for the CPU and CUDA 13 stay. Then, on that machine: bash tests/gpu/run.sh
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PACKAGES = (
    "bitsandbytes", "nvidia-ml-py", "python-dotenv", "rich", "markdown-it-py", "mdurl", "pygments", "sentencepiece",
    "pytest", "pytest-timeout", "iniconfig", "pluggy", "hypothesis", "sortedcontainers",
    "flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click", "blinker", "gunicorn", "packaging",
)  # fmt: skip
KEPT_LIBRARIES = ("libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so")


def pinned(names: tuple[str, ...], lock: str) -> list[str]:
    """`name==version` of each name, from the text of a requirement file. Raises SystemExit that names missing ones."""
    versions = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", lock, re.MULTILINE))
    missing = [name for name in names if name not in versions]
    if missing:
        raise SystemExit(f"gpu_kit: requirements/dev.txt does not pin {', '.join(missing)}")
    return [f"{name}=={versions[name]}" for name in names]


def strip_bitsandbytes(folder: Path) -> None:
    """Removes the native libraries for other platforms, twenty of twenty-two and nearly all of its bytes."""
    for library in (folder / "bitsandbytes").glob("libbitsandbytes_*.so"):
        if library.name not in KEPT_LIBRARIES:
            library.unlink()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Pack what the GPU checks need.")
    parser.add_argument("--python-version", default="3.12")
    parser.add_argument("--folder", type=Path, default=TOP / ".gpu-kit")
    options = parser.parse_args()
    packages = pinned(PACKAGES, (TOP / "requirements" / "dev.txt").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "kit"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", options.python_version, "--target", str(target), *packages]
        if subprocess.run(command, check=False).returncode:
            return 1
        strip_bitsandbytes(target)
        shutil.rmtree(options.folder, ignore_errors=True)
        shutil.copytree(target, options.folder)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {size / 2**20:.0f} MiB; copy it beside the checkout and run: bash tests/gpu/run.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
