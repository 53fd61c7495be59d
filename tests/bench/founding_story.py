"""The founding story at full size: ChatGLM3-6B's published layout in containers with less memory than its weights.

    .venv/bin/python -m tests.bench.founding_story [--limits 8g:int8,5g:int4] [--keep FOLDER]
    .venv/bin/python -m tests.bench.founding_story --layers 4 --limits 2g:int4 --keep FOLDER

Writes a random ChatGLM3-6B (12.5 GB on disk, some minutes; kept with --keep), builds the image, and starts it with each
memory limit. Prints the plan, the start and its parts, the proof, the container's own peak, and how fast it answers
beside what the memory allows: its read bandwidth by the weights that a token reads. The exit code is 1 if a limit gives
another precision than expected. Needs a Docker engine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entrypoint.machine.read_bandwidth import measure_read_bandwidth
from tests.bench.serving.report import processor
from tests.container import lab
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

GIB = 1024**3
IMAGE = "berth:founding-story"
"""Its own, so that container tests that run beside it keep theirs."""
MODEL = "zai-org/chatglm3-6b"
LIMITS = "8g:int8,5g:int4"
READY_SECONDS = 1800.0
NEW_TOKENS = 16
ANSWERS = 5
PEAK_FILES = ("/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes")


@dataclass(frozen=True)
class Limit:
    """A container's memory, as `docker run` takes it, and the precision that it should give."""

    memory: str
    precision: str


@dataclass(frozen=True)
class Pace:
    """One request alone."""

    first_token_seconds: float
    """Of a prompt that was not computed before."""
    gap_seconds: float
    """Between two tokens: the median over answers of an answer's mean."""
    read_bandwidth: float | None
    """Bytes a second that the same cores read, measured between the answers, their median; None if other processes
    kept the cores busy."""


def limits(text: str) -> list[Limit]:
    """From `8g:int8,5g:int4`."""
    pairs = [part.partition(":") for part in text.split(",")]
    if not all(memory and precision for memory, _, precision in pairs):
        raise argparse.ArgumentTypeError(f"{text} is not like {LIMITS}")
    return [Limit(memory, precision) for memory, _, precision in pairs]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=limits, default=LIMITS, help="memory and expected precision of each container")
    parser.add_argument("--layers", type=int, help="fewer than the published layers, to try this out")
    parser.add_argument("--keep", type=Path, help="a folder for the checkpoint, kept for the next run")
    options = parser.parse_args()
    if missing := lab.engine_missing():
        print(f"founding_story: {missing}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint(options.keep or Path(scratch), options.layers)
        Path(scratch).chmod(0o755)
        with lab.project(Path(scratch), IMAGE, files=lab.overlay()) as project:
            project.compose("build", timeout=1800)
        results = [run(folder, limit) for limit in options.limits]
    name, kind = processor()
    print(f"\nOn {name} ({kind}):\n" + "\n".join(line for lines, _ in results for line in lines))
    return 0 if all(expected for _, expected in results) else 1


def checkpoint(parent: Path, layers: int | None) -> Path:
    """The random model, written if it is not there; its config is what is written last."""
    folder = parent / ("chatglm3-6b" + (f"-{layers}-layers" if layers else ""))
    if not (folder / "config.json").exists():
        shape = CheckpointShape.published(MODEL)
        make_checkpoint(folder, replace(shape, layers=layers) if layers else shape)
    return folder


def run(folder: Path, limit: Limit) -> tuple[list[str], bool]:
    """What is told of a container with that limit, and whether it took the expected precision."""
    containers = lab.Containers(IMAGE)
    try:
        began = time.monotonic()
        volume = ["--volume", f"{folder}:/host-models/{folder.name}:ro"]
        service = containers.start(env={"GLM_MODEL": folder.name}, options=volume, memory=limit.memory)
        status = service.wait_for("ready", "failed", seconds=READY_SECONDS)
        ready_seconds = time.monotonic() - began
        print(service.logs())
        if status["phase"] != "ready":
            return [f"limit {limit.memory}: failed, {status['refusal']['why']['en']}"], False
        pace = measure_pace(service)
        reads = " || ".join(f"cat {path} 2>/dev/null" for path in PEAK_FILES)
        peak_bytes = int(service.exec("sh", "-c", reads).stdout)
        return told(limit, status, ready_seconds, pace, peak_bytes), status["precision"] == limit.precision
    finally:
        containers.remove_all()


def measure_pace(service: lab.Service) -> Pace:
    """Asks one request at a time, without a stream: of a random model's tokens not each is text, so most say nothing.

    The same prompt is computed once, so that an answer of one token takes what all that is not decoding takes.
    """
    first = answer_seconds(service, "你好", 1)
    gaps, bandwidths = [], []
    for _ in range(ANSWERS):
        alone = answer_seconds(service, "你好", 1)
        gaps.append((answer_seconds(service, "你好", 1 + NEW_TOKENS) - alone) / NEW_TOKENS)
        if read := measure_read_bandwidth():
            bandwidths.append(read)
    return Pace(first, statistics.median(gaps), statistics.median(bandwidths) if bandwidths else None)


def answer_seconds(service: lab.Service, text: str, tokens: int) -> float:
    """Of a greedy answer with so many tokens. Raises RuntimeError where it is refused or shorter."""
    began = time.monotonic()
    answer = service.chat(text, max_tokens=tokens, temperature=0)
    seconds = time.monotonic() - began
    if answer.status != 200 or answer.json()["usage"]["completion_tokens"] != tokens:
        raise RuntimeError(f"{tokens} tokens were wanted: {answer.text}")
    return seconds


def told(
    limit: Limit, status: Mapping[str, Any], ready_seconds: float, pace: Pace, container_peak_bytes: int
) -> list[str]:
    """The report of one container, from its `/api/status`."""
    proof, chosen = status["proof"], status["plan"]["chosen"]
    load, prove = proof["load_seconds"], proof["proof_seconds"]
    lines = [
        f"limit {limit.memory}: {status['precision']}, {status['max_model_len']} tokens of context, "
        f"{status['max_num_seqs']} at once" + ("" if status["precision"] == limit.precision else ", NOT AS EXPECTED"),
        f"  ready after {ready_seconds:.0f} s: loading {load:.0f}, proof {prove:.0f}, "
        f"the rest {ready_seconds - load - prove:.0f}",
        f"  planned {proof['planned_bytes'] / GIB:.2f} GiB, engine's peak {proof['measured_bytes'] / GIB:.2f} GiB; "
        f"container's peak, with the page cache that is kept while there is room, {container_peak_bytes / GIB:.2f} GiB",
        f"  first token after {pace.first_token_seconds:.2f} s, then {1000 * pace.gap_seconds:.0f} ms a token: "
        f"{1 / pace.gap_seconds:.2f} tokens a second",
    ]
    if (speed := chosen["speed"]) and pace.read_bandwidth:
        most = pace.read_bandwidth / speed["read_bytes"]
        lines.append(
            f"  {1 / pace.gap_seconds / most:.0%} of {most:.2f}, which {pace.read_bandwidth / 1e9:.1f} GB/s allow with "
            f"{speed['read_bytes'] / GIB:.2f} GiB read for each token; the plan expected "
            f"{speed['low_tokens_per_second']:.2f} to {speed['high_tokens_per_second']:.2f}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
