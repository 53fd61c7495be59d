"""The founding story at full size: ChatGLM3-6B's published layout in a container with less memory than its weights.

    .venv/bin/python -m tests.bench.founding_story [--memory 8g] [--keep FOLDER]

Writes a random ChatGLM3-6B (12.5 GB on disk, some minutes; kept with --keep), builds the image, starts it with that
memory limit and waits until it answers. Prints the plan, the proof and the container's own peak. Needs a Docker engine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.container import lab
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

GIB = 1024**3
READY_SECONDS = 1800.0
PEAK_FILES = ("/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="A 12.5 GB model in an 8 GiB container.")
    parser.add_argument("--memory", default="8g", help="the container's limit, as docker run takes it")
    parser.add_argument("--keep", type=Path, help="a folder for the checkpoint, kept for the next run")
    options = parser.parse_args()
    if missing := lab.engine_missing():
        print(f"founding_story: {missing}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)) / "chatglm3-6b"
        if not (folder / "config.json").exists():
            make_checkpoint(folder, CheckpointShape.published("zai-org/chatglm3-6b"))
        Path(scratch).chmod(0o755)
        with lab.project(Path(scratch), lab.IMAGE, files=lab.overlay()) as project:
            project.compose("build", timeout=1800)
        containers = lab.Containers(lab.IMAGE)
        try:
            tell(containers, folder, options.memory)
        finally:
            containers.remove_all()
    return 0


def tell(containers: lab.Containers, folder: Path, memory: str) -> None:
    """Starts the container, waits, asks, and prints what was planned and what was taken."""
    began = time.monotonic()
    volume = ["--volume", f"{folder}:/host-models/{folder.name}:ro"]
    service = containers.start(env={"GLM_MODEL": folder.name}, options=volume, memory=memory)
    status = service.wait_for("ready", "failed", seconds=READY_SECONDS)
    print(service.logs())
    assert status["phase"] == "ready", status["refusal"]
    ready = time.monotonic() - began
    asked = time.monotonic()
    answer = service.chat("你好", max_tokens=16)
    assert answer.status == 200, answer.text
    seconds = time.monotonic() - asked
    reads = " || ".join(f"cat {path} 2>/dev/null" for path in PEAK_FILES)
    taken = int(service.exec("sh", "-c", reads).stdout)
    proof = status["proof"]
    print(f"limit {memory}: {status['precision']}, {status['max_model_len']} tokens of context")
    print(f"ready after {ready:.0f} s, {proof['load_seconds']:.0f} of them loading; 16 tokens in {seconds:.1f} s")
    print(f"planned {proof['planned_bytes'] / GIB:.2f} GiB, engine's peak {proof['measured_bytes'] / GIB:.2f} GiB")
    print(f"the container's peak, with the page cache that the kernel keeps while there is room: {taken / GIB:.2f} GiB")


if __name__ == "__main__":
    sys.exit(main())
