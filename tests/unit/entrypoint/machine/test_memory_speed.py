"""The speed of memory: what is read to measure it, and what the cards' names and clocks say."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.machine.gpu_bandwidth import by_clock, by_name
from entrypoint.machine.read_bandwidth import buffer_bytes, cache_bytes, measure_read_bandwidth

MIB = 1024**2
GIB = 1024**3


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine whose cores have caches of 2 MiB, and share one of 32 MiB."""
    for index, size, sharing in ((0, "48K", "0"), (2, "2048K", "0"), (3, "32768K", "0-1023")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
        (folder / "shared_cpu_list").write_text(f"{sharing}\n")
    return tmp_path


def test_the_buffer_is_larger_than_the_last_level_cache(machine: Path) -> None:
    assert cache_bytes(4, machine) == 32 * MIB
    assert buffer_bytes(4, 8 * GIB, machine) == 16 * MIB
    assert buffer_bytes(64, 8 * GIB, machine) == 8 * MIB


def test_little_memory_is_taken_where_little_is_free(machine: Path) -> None:
    assert buffer_bytes(4, 200 * MIB, machine) == 12 * MIB
    assert buffer_bytes(4, 100 * MIB, machine) is None, "a cache would hold all of it"


def test_an_unknown_cache_counts_as_a_large_one(tmp_path: Path) -> None:
    assert buffer_bytes(1, 8 * GIB, tmp_path) == 64 * MIB


def test_without_free_memory_nothing_is_measured(tmp_path: Path) -> None:
    assert measure_read_bandwidth(tmp_path) is None


@pytest.mark.parametrize(
    ("megahertz", "bits", "gigabytes"), [(9751, 384, 936), (1215, 5120, 1555), (5001, 256, 320), (3201, 6144, 4916)]
)
def test_clock_and_width_are_the_data_sheets_number(megahertz: int, bits: int, gigabytes: int) -> None:
    speed = by_clock(megahertz, bits)
    assert speed is not None
    assert speed // 10**9 == gigabytes


def test_a_driver_that_does_not_tell_leaves_it_to_the_name() -> None:
    assert by_clock(None, 384) is None
    assert by_clock(9751, 0) is None


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("NVIDIA GeForce RTX 3060", 360),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 672),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("NVIDIA A100-PCIE-40GB", 1555),
        ("NVIDIA H100 80GB HBM3", 3352),
        ("Tesla V100-SXM2-16GB", 900),
        ("Tesla T4", 320),
        ("NVIDIA L40S", 864),
    ],
)
def test_cards_by_name(name: str, gigabytes: int) -> None:
    assert by_name(name) == gigabytes * 10**9


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce GTX 1080", "unknown"])
def test_a_card_that_is_not_in_the_table_has_no_speed(name: str) -> None:
    assert by_name(name) is None
