"""Checks whether the engine can compute the rotary embedding of a native config.json."""

from __future__ import annotations

from collections.abc import Mapping

from app.layouts.config_fields import LayoutError, positive

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
BY_LENGTH = ("dynamic", "longrope")
"""Types whose frequencies change with the prompt's length; prompts are computed in chunks."""


def check_rotary(config: Mapping[str, object]) -> None:
    """Raises LayoutError that names the field if positions would be computed wrongly or not at all."""
    for field in ("rope_scaling", "rope_parameters"):
        value = config.get(field)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise LayoutError(f"{field} is {value!r}; an object with rope_type is needed")
        _check_type(field, value)
        _check_numbers(value)
    _check_numbers(config)


def _check_type(field: str, rope: Mapping[str, object]) -> None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in BY_LENGTH:
        raise LayoutError(
            f"{field} has the type {kind!r}: its frequencies change with a prompt's length, and prompts are computed "
            f"in chunks; supported: {', '.join(ROPE_TYPES)}"
        )
    if kind not in ROPE_TYPES:
        raise LayoutError(f"{field} has the type {kind!r}; supported: {', '.join(ROPE_TYPES)}")
    if kind != "default":
        positive(rope, "factor")


def _check_numbers(fields: Mapping[str, object]) -> None:
    positive(fields, "rope_theta", 10000)
    if (share := positive(fields, "partial_rotary_factor", 1)) > 1:
        raise LayoutError(f"partial_rotary_factor is {share!r}; the share of a head that is rotated is at most 1")
