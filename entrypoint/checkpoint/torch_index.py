"""A `.bin` checkpoint whose files are elsewhere: its index names tensors and their bytes in all, no shape or dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.layouts.config_fields import LayoutError
from app.layouts.layout import Layout
from app.layouts.quantisation import floats_only
from app.layouts.registry import layout_of, shape_of
from app.layouts.shape import Shape
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint.safetensors_header import CheckpointError, Tensor
from entrypoint.checkpoint.source import indexed_files

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""torch's names, as config.json gives them, and safetensors'."""
IGNORED_SHARE = 100
"""Tensors that the loader ignores (rotary tables) are less than one in so many bytes."""


def tensors_from_total(path: str, index: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor that config.json asks for, in the element size that makes the sum agree with `total_size`.

    `path` is what messages call the index. Whether 2-byte elements are bf16 or fp16 is what config.json says; it
    doesn't change a number of the plan. What the index names beyond the layout stays out of the result.

    Raises:
        CheckpointError: the index lacks a tensor, or no element size agrees within what the loader ignores.
    """
    try:
        floats_only(config)
        layout, shape = layout_of(config), shape_of(config)
    except LayoutError as error:
        raise CheckpointError(f"{path}: config.json beside it: {error}") from error
    indexed_files(path, index)
    files: Mapping[str, str] = index["weight_map"]
    expected = stored_tensors(layout, shape)
    missing = next((stored.name for stored in expected if stored.name not in files), None)
    if missing:
        raise CheckpointError(f"{path}: tensor {missing} is missing; take a whole checkpoint")
    elements = sum(stored.elements for stored in expected)
    width = _element_bytes(path, index, elements, _slack(layout, shape, files, {stored.name for stored in expected}))
    named = DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "F16")
    dtype = "F32" if width == 4 else (named if named != "F32" else "F16")
    found = {}
    for stored in expected:
        found[stored.name] = Tensor(files[stored.name], dtype, stored.shape, width * stored.elements)
    return found


def _slack(layout: Layout, shape: Shape, files: Mapping[str, str], expected: set[str]) -> tuple[int, bool]:
    """Elements of a tied output layer that may be stored too, and whether the index names ignored tensors."""
    head = layout.stored_name("lm_head.weight")
    tied = shape.vocab * shape.hidden if shape.tied and head in files else 0
    return tied, any(layout.ignores(name, shape) for name in files if name not in {*expected, head})


def _element_bytes(path: str, index: Mapping[str, Any], elements: int, slack: tuple[int, bool]) -> int:
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if not isinstance(total, (int, float)) or isinstance(total, bool) or not 0 < total < 1 << 62:
        raise CheckpointError(f"{path}: metadata.total_size is {str(total)[:40]}; a .bin index needs its bytes there")
    tied, ignores = slack
    for width in (4, 2):
        for stored in (elements, elements + tied):
            rest = total - width * stored
            if rest == 0 or (ignores and 0 < rest < total / IGNORED_SHARE):
                return width
    raise CheckpointError(
        f"{path}: total_size is {total:,} bytes, config.json's shapes come to {2 * elements:,} (16 bits) or "
        f"{4 * elements:,} (32 bits); the two files don't belong together, or take the safetensors files"
    )
