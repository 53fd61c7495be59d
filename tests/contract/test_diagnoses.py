"""The twenty things that keep a GPU host from serving, and the tests that bring each about and read what is said."""

from __future__ import annotations

import ast

import pytest

from tests.paths import TOP

README = (TOP / "README.md").read_text(encoding="utf-8")

GPU = "integration/entrypoint/test_diagnoses_gpu.py"
ENGINE = "integration/entrypoint/test_diagnoses_engine.py"
PROOFS: dict[int, tuple[str, ...]] = {
    1: (f"{GPU}::test_no_driver_anywhere", f"{GPU}::test_a_driver_on_the_host_and_no_gpu_in_the_container"),
    2: ("contract/test_diagnoses.py::test_what_docker_says_before_berth_runs_is_in_the_readme",),
    3: (f"{GPU}::test_the_driver_fails",),
    4: (f"{GPU}::test_the_driver_fails",),
    5: (f"{GPU}::test_the_driver_fails", f"{ENGINE}::test_with_a_gpu_required_the_page_says_why_there_is_none"),
    6: (f"{GPU}::test_a_card_that_fails_is_left_out_and_the_others_go_on", f"{GPU}::test_the_only_card_fails"),
    7: (f"{GPU}::test_a_divided_card_that_gives_no_instance",),
    8: (f"{GPU}::test_unified_memory_is_planned_with_the_hosts",),
    9: (f"{GPU}::test_a_card_that_this_torch_cannot_use",),
    10: (f"{GPU}::test_a_card_that_this_torch_cannot_use",),
    11: (f"{GPU}::test_a_card_without_bf16",),
    12: (f"{ENGINE}::test_torch_without_cuda_is_told_and_the_cpu_takes_over",),
    13: (
        f"{GPU}::test_visible_devices_match_nothing",
        "unit/entrypoint/machine/test_cuda_visible_devices.py::test_what_shows_nothing",
    ),
    14: (f"{GPU}::test_memory_that_others_hold",),
    15: ("unit/entrypoint/plan/test_footprint.py::test_a_mixture_of_experts_says_how_little_quantising_saves",),
    16: ("unit/entrypoint/plan/test_prequantised.py::test_fp8_is_planned_from_its_headers_and_refused",),
    17: (
        "unit/entrypoint/plan/test_planner.py::test_nothing_fits_at_all",
        "unit/entrypoint/plan/test_planner.py::test_an_explicit_context_is_kept_or_refused_with_the_line_to_change",
    ),
    18: (
        "integration/entrypoint/test_fetch.py::test_too_little_room_is_said_before_a_byte_comes",
        "integration/entrypoint/test_fetch.py::test_a_cache_that_cannot_be_written",
        "integration/entrypoint/test_doctor.py::test_folders_that_cannot_be_written",
    ),
    19: (
        "unit/entrypoint/plan/test_planner.py::test_a_container_limit_that_is_too_small_is_named",
        "unit/entrypoint/supervisor/test_death.py::test_a_kernel_kill_tells_limit_and_peak",
        "container/test_doctor.py::test_a_limit_that_is_too_small",
        "container/test_founding_story.py::test_a_real_oom_kill_is_named_and_recovered_from",
    ),
    20: (
        "unit/entrypoint/hub/test_source.py::test_each_answer_is_named_with_the_line_to_change",
        "unit/entrypoint/hub/test_source.py::test_nobody_there",
        "integration/service/test_fetch.py::test_a_model_that_is_not_there_is_explained_by_a_page_that_stays_up",
    ),
}


def test_there_are_twenty() -> None:
    assert list(PROOFS) == list(range(1, 21))


@pytest.mark.parametrize("number", PROOFS)
def test_each_is_proved(number: int) -> None:
    for proof in PROOFS[number]:
        file, _, name = proof.partition("::")
        tree = ast.parse((TOP / "tests" / file).read_text(encoding="utf-8"))
        (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert any(isinstance(node, ast.Assert) for node in ast.walk(function)), proof


def test_what_docker_says_before_berth_runs_is_in_the_readme() -> None:
    """The container is never made, so that nothing of ours could say it."""
    section = README.split("## Troubleshooting")[1].split("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith('| `could not select device driver "nvidia"')]
    assert "NVIDIA Container Toolkit" in row
    assert "`COMPOSE_FILE`" in row
    assert "docker compose run --rm glm doctor" in section
