"""CUDA_VISIBLE_DEVICES as CUDA reads it; the cases are those of torch's own reading of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from entrypoint.machine.cuda_visible_devices import NamedDevice, visible_devices
from entrypoint.reasons.machine import AllGpusHidden, GpuNamedTwice, ListEndsEarly, NoGpuNamed, PciOrder
from entrypoint.reasons.reason import Reason
from tests.unit.planning import gpu

UUIDS = ("GPU-aa01", "GPU-aa02", "GPU-bb03")
CARDS = [NamedDevice(replace(gpu(8, index=index), uuid=name)) for index, name in enumerate(UUIDS)]


def visible(value: str | None, order: str = "PCI_BUS_ID") -> tuple[list[int], tuple[Reason, ...]]:
    """Indices of what is shown, and the reasons that come with it."""
    environment = {"CUDA_DEVICE_ORDER": order} | ({} if value is None else {"CUDA_VISIBLE_DEVICES": value})
    shown = visible_devices(CARDS, len(CARDS), environment)
    assert (shown.why_none is None) == bool(shown.devices)
    return [device.index for device in shown.devices], (*([shown.why_none] if shown.why_none else []), *shown.notes)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, [0, 1, 2]),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2", [1, 2]),
        ("1gpu,2", [1, 2]),
        ("+1", [1]),
        ("0,-1,2", [0]),
        ("1,7,0", [1]),
        ("0,,1", [0]),
        ("0,GPU-bb03", [0]),
        ("GPU-bb03", [2]),
        ("GPU-b", [2]),
        ("GPU-aa02,GPU-b", [1, 2]),
        ("GPU-bb03,1", [2]),
        ("GPU-bb03,GPU-a,GPU-aa01", [2]),
    ],
)
def test_what_is_shown(value: str | None, shown: list[int]) -> None:
    assert visible(value)[0] == shown


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("", AllGpusHidden),
        ("-1", AllGpusHidden),
        ("-1,0", AllGpusHidden),
        ("NoDevFiles", AllGpusHidden),
        ("0,0", GpuNamedTwice),
        ("GPU-aa01,GPU-aa01", GpuNamedTwice),
        ("GPU-bb,GPU-bb03", GpuNamedTwice),
        ("3", NoGpuNamed),
        ("GPU-aa", NoGpuNamed),
        ("MIG-aa01", NoGpuNamed),
        ("all", NoGpuNamed),
    ],
)
def test_what_shows_nothing(value: str, kind: type[Reason]) -> None:
    shown, (reason,) = visible(value)
    assert shown == []
    assert reason == (NoGpuNamed(value, UUIDS) if kind is NoGpuNamed else kind(value))


def test_an_entry_that_ends_the_list_is_told() -> None:
    assert visible("1,7,0")[1] == (ListEndsEarly("1,7,0", "7"),)


@pytest.mark.parametrize(("order", "reasons"), [("PCI_BUS_ID", ()), ("FASTEST_FIRST", (PciOrder("1"),))])
def test_numbers_count_in_pci_order_and_that_is_said_where_it_may_differ(
    order: str, reasons: tuple[Reason, ...]
) -> None:
    assert visible("1", order) == ([1], reasons)
    assert visible("GPU-b", order)[1] == ()


def test_a_number_of_a_card_that_fails_does_not_end_the_list() -> None:
    """CUDA counts what the driver counts; the second of three can't be read."""
    shown = visible_devices([CARDS[0], CARDS[2]], 3, {"CUDA_VISIBLE_DEVICES": "1,2"})
    assert [device.index for device in shown.devices] == [2]
    assert visible_devices([CARDS[0]], 3, {"CUDA_VISIBLE_DEVICES": "1"}).devices == ()


def test_instances_are_shown_with_their_card_and_by_themselves() -> None:
    parts = [
        NamedDevice(replace(gpu(8), uuid=f"MIG-{letter}", parent="GPU-aa01"), f"MIG-GPU-aa01/{number}/0")
        for number, letter in enumerate("xy", 1)
    ]
    for value, uuids in (
        ("0", ["MIG-x", "MIG-y"]),
        ("GPU-aa01", ["MIG-x", "MIG-y"]),
        ("MIG-y", ["MIG-y"]),
        ("MIG-GPU-aa01/1/0", ["MIG-x"]),
        ("MIG-x,MIG-y", ["MIG-x", "MIG-y"]),
    ):
        shown = visible_devices(parts, 1, {"CUDA_VISIBLE_DEVICES": value})
        assert [device.uuid for device in shown.devices] == uuids, value
