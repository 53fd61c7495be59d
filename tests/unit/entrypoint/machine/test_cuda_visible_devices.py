"""CUDA_VISIBLE_DEVICES as CUDA reads it; the cases are those of torch's own reading of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from entrypoint.machine.cuda_visible_devices import Seen, apply
from tests.unit.planning import gpu

NAMES = ("GPU-aa01", "GPU-aa02", "GPU-bb03")
CARDS = [Seen(replace(gpu(8, index=index), uuid=name)) for index, name in enumerate(NAMES)]


def visible(value: str | None, order: str = "PCI_BUS_ID") -> tuple[list[int], str]:
    """Indices of what is shown, and what is said of it."""
    environment = {"CUDA_DEVICE_ORDER": order} | ({} if value is None else {"CUDA_VISIBLE_DEVICES": value})
    shown = apply(CARDS, len(CARDS), environment)
    assert (shown.none is None) == bool(shown.devices)
    said = " ".join(text.en for text in (*([shown.none] if shown.none else []), *shown.notes))
    return [device.index for device in shown.devices], said


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
    ("value", "said"),
    [
        ("", "hides every GPU"),
        ("-1", "hides every GPU"),
        ("-1,0", "hides every GPU"),
        ("NoDevFiles", "hides every GPU"),
        ("0,0", "names a GPU twice"),
        ("GPU-aa01,GPU-aa01", "names a GPU twice"),
        ("GPU-bb,GPU-bb03", "names a GPU twice"),
        ("3", "matches none of: GPU-aa01, GPU-aa02, GPU-bb03"),
        ("GPU-aa", "matches none of"),
        ("MIG-aa01", "matches none of"),
        ("all", "matches none of"),
    ],
)
def test_what_shows_nothing(value: str, said: str) -> None:
    shown, text = visible(value)
    assert shown == []
    assert said in text


def test_an_entry_that_ends_the_list_is_told() -> None:
    assert "there is no GPU '7', and CUDA reads no further" in visible("1,7,0")[1]


@pytest.mark.parametrize(("order", "told"), [("PCI_BUS_ID", False), ("FASTEST_FIRST", True)])
def test_numbers_count_in_pci_order_and_that_is_said_where_it_may_differ(order: str, told: bool) -> None:
    shown, said = visible("1", order)
    assert shown == [1]
    assert ("is counted in PCI order" in said) == told
    assert visible("GPU-b", order)[1] == ""


def test_a_number_of_a_card_that_fails_does_not_end_the_list() -> None:
    """CUDA counts what the driver counts; the second of three can't be read."""
    shown = apply([CARDS[0], CARDS[2]], 3, {"CUDA_VISIBLE_DEVICES": "1,2"})
    assert [device.index for device in shown.devices] == [2]
    assert apply([CARDS[0]], 3, {"CUDA_VISIBLE_DEVICES": "1"}).devices == ()


def test_instances_are_shown_with_their_card_and_by_themselves() -> None:
    parts = [
        Seen(replace(gpu(8), uuid=f"MIG-{letter}", parent="GPU-aa01"), f"MIG-GPU-aa01/{number}/0")
        for number, letter in enumerate("xy", 1)
    ]
    for value, uuids in (
        ("0", ["MIG-x", "MIG-y"]),
        ("GPU-aa01", ["MIG-x", "MIG-y"]),
        ("MIG-y", ["MIG-y"]),
        ("MIG-GPU-aa01/1/0", ["MIG-x"]),
        ("MIG-x,MIG-y", ["MIG-x", "MIG-y"]),
    ):
        shown = apply(parts, 1, {"CUDA_VISIBLE_DEVICES": value})
        assert [device.uuid for device in shown.devices] == uuids, value
