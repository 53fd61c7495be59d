"""The driver shows a GPU, and the engine can't use it: told in its death, and the service goes on or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nvml_stub import CUDA_13, UNKNOWN, Stub, card, python_with_torch_facts
from tests.processes.service import running


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its notes claim a CUDA build; the torch that it has is this environment's, which on CI is a CPU wheel."""
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("needs torch's CPU wheel")
    return python_with_torch_facts(tmp_path_factory.mktemp("python") / "venv", CUDA_13)


def test_torch_without_cuda_is_told_and_the_cpu_takes_over(nvml: Stub, python: Path, tmp_path: Path) -> None:
    with running(tmp_path, python, **nvml.says(card())) as service:
        status = service.wait_for("ready")
        death = status["last_death"]
        assert (death["cause"], death["phase"]) == ("no_cuda", "loading")
        assert death["why"]["code"] == "cuda_unusable"
        assert "is a CPU-only wheel; install the CUDA build" in death["why"]["values"]["message"]
        assert [(a["device"], a["outcome"]) for a in status["attempts"]] == [
            (card()["uuid"], "died"),
            ("cpu", "ready"),
        ]
        on_gpu = [rung for rung in status["plan"]["rungs"] if rung["device"] != "cpu"]
        assert on_gpu and all(rung["verdict"] == "unsupported" for rung in on_gpu)
        assert on_gpu[0]["reason"]["values"]["why"]["code"] == "cuda_unusable"
        assert "CPU-only wheel" in on_gpu[0]["reason"]["en"]


def test_with_a_gpu_required_the_page_says_why_there_is_none(nvml: Stub, python: Path, tmp_path: Path) -> None:
    """The driver answers at the first look and not at the next: systemd took the devices away meanwhile."""
    environment = nvml.says(card(), fails_after={"nvmlDeviceGetHandleByIndex_v2": [1, UNKNOWN]})
    with running(tmp_path, python, GLM_REQUIRE_GPU="1", **environment) as service:
        status = service.wait_for("failed")
        death, refusal = status["last_death"], status["refusal"]
        assert death["cause"] == "gpu_lost"
        assert death["why"]["code"] == "container_lost_gpu"
        assert "recreate the container" in death["why"]["en"] and "请重新创建容器" in death["why"]["zh"]
        assert (refusal["why"]["code"], refusal["why"]["values"]["note"]["code"]) == (
            "no_gpu_seen",
            "gpu_taken_away",
        )
        assert service.request("GET", "/health/ready")[0] == 503
