"""Which cards run the code of a torch build."""

from __future__ import annotations

from dataclasses import replace

import pytest

from entrypoint.machine.torch_build import TorchBuild, why_unusable
from tests.unit.planning import CUDA_BUILD, gpu


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 6), True),
        ("sm_80", (8, 9), True),
        ("sm_86", (8, 0), False),
        ("sm_90", (8, 9), False),
        ("sm_90", (10, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("sm_120", (12, 1), True),
        ("compute_90", (12, 0), True),
        ("compute_90", (8, 9), False),
    ],
)
def test_machine_code_by_major_version_and_ptx_from_its_own_on(
    built: str, capability: tuple[int, int], runs: bool
) -> None:
    torch = TorchBuild("2.13.0+cu130", "13.0", (built,))
    assert (why_unusable(gpu(8, capability), torch) is None) == runs


@pytest.mark.parametrize(
    ("driver", "torch", "runs"),
    [((12, 8), "13.0", False), ((13, 0), "13.2", True), ((13, 0), "12.6", True), (None, "13.0", True)],
)
def test_a_driver_runs_its_own_major_version_and_earlier_ones(
    driver: tuple[int, int] | None, torch: str, runs: bool
) -> None:
    device = replace(gpu(8), cuda_driver=driver)
    assert (why_unusable(device, replace(CUDA_BUILD, cuda=torch)) is None) == runs


def test_what_is_not_known_is_no_hindrance() -> None:
    assert why_unusable(None, CUDA_BUILD) is None
    assert why_unusable(gpu(8, None), CUDA_BUILD) is None
    assert why_unusable(gpu(8, (3, 5)), None) is None
    assert why_unusable(gpu(8, (3, 5)), TorchBuild("2.13.0+cu130", "13.0")) is None


def test_only_a_card_older_than_the_build_is_sent_to_an_older_cuda() -> None:
    old, new = why_unusable(gpu(8, (6, 1)), CUDA_BUILD), why_unusable(gpu(8, (11, 0)), CUDA_BUILD)
    assert old is not None and (old.code, old.values["is_older"]) == ("capability_not_built", True)
    assert new is not None and (new.code, new.values["is_older"]) == ("capability_not_built", False)
    assert "older CUDA" in old.en and "older CUDA" not in new.en
