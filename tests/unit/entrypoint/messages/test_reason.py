"""Reasons are frozen dataclasses, though no class of them is decorated."""

from __future__ import annotations

import dataclasses

import pytest

from entrypoint.reasons.plan import FitsShorter, FitsToo, ShortOfMemory

SHORT = ShortOfMemory(("cpu",), 5, 3, 2)


def test_fields_are_given_by_position_or_by_name() -> None:
    assert ShortOfMemory(devices=("cpu",), need_bytes=5, free_bytes=3, short_bytes=2) == SHORT
    assert ShortOfMemory(("cpu",), 5, 3, 1) != SHORT
    assert FitsToo("int8", ("cpu",), True) != SHORT
    assert len({SHORT, ShortOfMemory(("cpu",), 5, 3, 2)}) == 1
    assert repr(SHORT) == "ShortOfMemory(devices=('cpu',), need_bytes=5, free_bytes=3, short_bytes=2)"
    assert (SHORT.code, SHORT.values()["short_bytes"]) == ("short_of_memory", 2)


def test_they_are_dataclasses_that_nothing_changes() -> None:
    assert dataclasses.replace(SHORT, short_bytes=4).short_bytes == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        SHORT.short_bytes = 4  # type: ignore[misc]


@pytest.mark.parametrize("arguments", [(), (("cpu",), 5, 3), (("cpu",), 5, 3, 2, 1)])
def test_wrong_numbers_of_values_are_errors(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="ShortOfMemory"):
        ShortOfMemory(*arguments)  # type: ignore[arg-type]


def test_wrong_names_are_errors() -> None:
    with pytest.raises(TypeError, match="has no tall_bytes"):
        ShortOfMemory(("cpu",), 5, 3, 2, tall_bytes=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="each once"):
        ShortOfMemory(("cpu",), 5, 3, 2, short_bytes=1)  # type: ignore[misc]
    with pytest.raises(TypeError, match="takes nothing by position"):
        FitsShorter(("cpu",))  # type: ignore[misc]


def test_a_field_without_a_value_has_its_default() -> None:
    fit = FitsShorter(devices=("cpu",), need_bytes=1, free_bytes=2, max_model_len=3, target_model_len=4)
    assert fit.layers == ()
