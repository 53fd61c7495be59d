"""The engine's tests once more, on a CPU with AVX-512, as on one that has AVX2 only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.paths import TOP
from tests.processes.avx2_only import AVX2_ONLY

FOLDERS = (
    "tests/unit/engine/kernels",
    *(f"tests/integration/engine/{name}" for name in ("backend", "loading", "model")),
)
SECONDS = 1200


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="these tests already ran with AVX2 only"
)
def test_the_engine_passes_with_avx2_only() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *FOLDERS]
    environment = {**os.environ, **AVX2_ONLY}
    run = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
