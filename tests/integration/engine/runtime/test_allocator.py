"""What the engine asks of the allocator, seen from the kernel: pages taken, given back, kept, and huge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.paths import TOP

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PAGES = 448
"""Of the blocks: above the threshold for mappings, below torch's for huge pages."""
PROBE = f"""
import json, resource
from app.engine.runtime import process
process.tune_allocator()
import torch

def taken():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty({PAGES * 4096}, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def flags(tensor):
    place, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in open("/proc/self/smaps"):
        first, *rest = line.split()
        if not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= place < end
        elif inside and first == "VmFlags:":
            return rest

torch.set_num_threads(1)
weights = torch.ones(64 << 20, dtype=torch.uint8)
loading = [taken() for _ in range(20)]
process.keep_freed_memory()
serving = [taken() for _ in range(60)]
print(json.dumps([loading, serving, flags(weights)]))
"""


@pytest.fixture(scope="module")
def seen() -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=TOP, check=True, capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


def test_freed_memory_goes_back_while_loading_and_stays_while_serving(seen: Any) -> None:
    loading, serving, _ = seen
    assert min(loading) >= PAGES
    assert max(serving[40:]) <= PAGES // 100, "after some blocks have found their places"


def test_weights_lie_on_huge_pages(seen: Any) -> None:
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        pytest.skip("this kernel gives no huge pages")
    assert "hg" in seen[2], "MADV_HUGEPAGE, proc(5)"
