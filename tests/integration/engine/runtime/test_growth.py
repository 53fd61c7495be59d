"""Requests of every length, one after the other and together, take no memory that was not planned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.contract.plan import Precision
from app.layouts.registry import HEAP_GAP_BYTES
from entrypoint.checkpoint.checkpoint import read_checkpoint
from entrypoint.plan.footprint import ATTENTION_CODE_BYTES
from tests.paths import TOP
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

WIDE = CheckpointShape(
    hidden=1024, layers=2, heads=16, kv_heads=2, head_dim=64, intermediate=4096, vocab=2048, context=2048
)
UNNOTICED_BYTES = 4 << 20
"""New gaps of the steps between two looks at the heap, for which the plan has its margin."""
PROBE = """
import json, random, sys
from pathlib import Path
from app.contract.config import EngineConfig
from app.engine.runtime import process
process.tune_allocator()
from app.engine import build
from app.engine.backend.interface import TokenRequest
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.runtime.memory import HeapBound, HostMeter, anonymous_bytes
from app.engine.sampling import Sampling

class Progress:
    def add(self, count): pass
    def finish(self): pass

folder, precision, context, requests = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = EngineConfig(
    precision=precision, compute_dtype="bfloat16", devices=("cpu",), device_map={"": "cpu"}, max_model_len=context,
    max_num_seqs=8, prefill_chunk=min(512, context), planned_bytes=0, cpu_threads=2,
)
meter = HostMeter()
backend = build.load(open_checkpoint(folder), config, Progress()).backend
backend.profile_run()
process.return_freed_memory()
peak, held = meter.peak_bytes(), anonymous_bytes()
bound = HeapBound(peak - held)
draw, left, started = random.Random(5), {}, 0
most = held
while left or started < requests:
    while started < requests and len(left) < 8 and draw.random() < 0.6:
        longest = draw.choice([10, 40, 120, 400, context - 40])
        ids = tuple(draw.choices(range(2000), k=draw.randrange(2, longest)))
        sampling = Sampling(temperature=0.7, top_p=0.9, top_k=0, seed=started)
        left[backend.add_request(TokenRequest(ids, sampling))] = draw.randrange(1, 20)
        started += 1
    for new in backend.step():
        left[new.slot] -= 1
        if left[new.slot] == 0:
            backend.finish_request(new.slot)
            del left[new.slot]
    bound.trim()
    most = max(most, anonymous_bytes())
print(json.dumps([peak, most]))
"""


def memory(folder: Path, precision: Precision, context: int, requests: int) -> tuple[int, int]:
    """Anonymous bytes of an engine: the proof's peak, and the most in service."""
    command = [sys.executable, "-c", PROBE, str(folder), precision, str(context), str(requests)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    peak, most = json.loads(done.stdout)
    return peak, most


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_what_is_kept_of_any_prompts_is_planned(tmp_path: Path, precision: Precision) -> None:
    """int8 on the demo model, whose activations have outliers; a random one's have none."""
    folder = TOP / "app" / "demo_model"
    if precision != "int8":
        make_checkpoint(folder := tmp_path / "wide", WIDE)
    context = min(2048, read_checkpoint(folder).shape.context)
    peak, most = memory(folder, precision, context, 400)
    planned = ATTENTION_CODE_BYTES + HEAP_GAP_BYTES + UNNOTICED_BYTES
    assert most <= peak + planned, (peak / 2**20, most / 2**20, planned / 2**20)
