"""How long a plan takes from local headers.

    .venv/bin/python -m tests.bench.plan_speed [--rounds 7] [--like zai-org/GLM-4.5-Air] [--shards 46]

Makes a checkpoint with true headers and holes for weights, as many shards and tensors as the published one has (about
18,000 for GLM-4.5-Air), and prints medians of: reading and checking the headers, making the plan, and the whole
`python -m entrypoint plan`, start of Python included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from entrypoint.checkpoint.checkpoint import read_checkpoint
from entrypoint.measure import measure
from entrypoint.model_choice import resolve_model
from entrypoint.plan.planner import make_plan
from entrypoint.settings.settings import Settings
from tests.paths import TOP
from tests.processes.service import run_entrypoint
from tests.sparse import SENTENCEPIECE_START, sharded_checkpoint

SHAPES = TOP / "tools" / "checkpoints" / "published_shapes.json"
LIMITS = {"headers read and checked": 0.3, "plan made": 0.3, "whole command": 1.0}


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes, without what an earlier call left in the caches of app.layouts and footprint."""
    from app.layouts.skeleton import skeleton
    from entrypoint.plan import footprint

    for cached in (skeleton, footprint._sums, footprint.load_transient_bytes):
        cached.cache_clear()
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def one_round(folder: Path, state: Path) -> dict[str, float]:
    """Each figure once, in seconds."""
    settings = Settings(model=str(folder))
    checkpoint = read_checkpoint(folder)
    inputs = measure(settings, resolve_model(settings), checkpoint)

    def command() -> None:
        run = run_entrypoint("plan", GLM_MODEL=str(folder), GLM_STATE_DIR=str(state))
        assert run.returncode in (0, 3), run.stderr

    return {
        "headers read and checked": timed(lambda: read_checkpoint(folder)),
        "plan made": timed(lambda: make_plan(inputs)),
        "whole command": timed(command),
    }


def main() -> None:
    """Runs the rounds and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--like", default="zai-org/GLM-4.5-Air", help="a checkpoint of tools/checkpoints/published_shapes.json"
    )
    parser.add_argument("--shards", type=int, default=46)
    options = parser.parse_args()
    config = json.loads(SHAPES.read_text(encoding="utf-8"))[options.like]
    if config.get("layout") == "chatglm":
        config = {**config, "model_type": "chatglm"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = sharded_checkpoint(Path(temporary) / "model", config, options.shards)
        (folder / "tokenizer.model").write_bytes(SENTENCEPIECE_START)
        tensors = len(read_checkpoint(folder).tensors)
        rounds = [one_round(folder, Path(temporary) / "state") for _ in range(options.rounds)]
    print(f"{options.like}: {tensors:,} tensors in {options.shards} files")
    for name, limit in LIMITS.items():
        values = [figures[name] for figures in rounds]
        print(
            f"{name:26} {statistics.median(values):6.3f} s   ({min(values):.3f} to {max(values):.3f})   limit {limit}"
        )


if __name__ == "__main__":
    main()
