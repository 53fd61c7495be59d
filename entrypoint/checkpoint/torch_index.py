"""A `.bin` checkpoint at the hub: its index has names and the total size of the tensors, but no shape or dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.layouts.config_fields import LayoutError
from app.layouts.layout import Layout
from app.layouts.quantisation import floats_only
from app.layouts.registry import layout_of, shape_of
from app.layouts.shape import Shape
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint.safetensors_header import CheckpointError, HeaderTensor
from entrypoint.checkpoint.source import indexed_files

CONFIG_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""Names in safetensors by torch's names, which config.json uses."""
IGNORED_SHARE = 100
"""Tensors that the loader ignores (rotary tables) are less than 1/100 of the bytes."""


def tensors_from_total(path: str, index: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, HeaderTensor]:
    """Every tensor that a model of this config has, with the element size for which the sum is `total_size`.

    Messages call the index `path`. config.json says whether 2-byte elements are bf16 or fp16, which changes no number
    of the plan. Tensors of the index that are not part of the layout are left out.

    Raises:
        CheckpointError: the index lacks a tensor, or no element size gives `total_size`, ignored tensors allowed for.
    """
    try:
        floats_only(config)
        layout, shape = layout_of(config), shape_of(config)
    except LayoutError as error:
        raise CheckpointError(f"{path}: in the config.json beside it, {error}") from error
    indexed_files(path, index)
    files: Mapping[str, str] = index["weight_map"]
    expected = stored_tensors(layout, shape)
    missing = next((stored.name for stored in expected if stored.name not in files), None)
    if missing:
        raise CheckpointError(f"{path}: tensor {missing} is missing; use a complete checkpoint")
    elements = sum(stored.elements for stored in expected)
    width = _element_bytes(path, index, elements, _slack(layout, shape, files, {stored.name for stored in expected}))
    config_dtype = CONFIG_DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "F16")
    dtype = "F32" if width == 4 else (config_dtype if config_dtype != "F32" else "F16")
    tensors = {}
    for stored in expected:
        tensors[stored.name] = HeaderTensor(files[stored.name], dtype, stored.shape, width * stored.elements)
    return tensors


def _slack(layout: Layout, shape: Shape, files: Mapping[str, str], expected: set[str]) -> tuple[int, bool]:
    """Elements of a tied output layer, which may be stored as well, and whether the index has ignored tensors."""
    head = layout.stored_name("lm_head.weight")
    tied = shape.vocab * shape.hidden if shape.tied and head in files else 0
    return tied, any(layout.ignores(name, shape) for name in files if name not in {*expected, head})


def _element_bytes(path: str, index: Mapping[str, Any], elements: int, slack: tuple[int, bool]) -> int:
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if not isinstance(total, (int, float)) or isinstance(total, bool) or not 0 < total < 1 << 62:
        raise CheckpointError(
            f"{path}: metadata.total_size is {str(total)[:40]}; a .bin index must give the size there"
        )
    tied, ignores = slack
    for width in (4, 2):
        for stored in (elements, elements + tied):
            rest = total - width * stored
            if rest == 0 or (ignores and 0 < rest < total / IGNORED_SHARE):
                return width
    raise CheckpointError(
        f"{path}: total_size is {total:,} bytes, but the shapes of config.json give {2 * elements:,} (16 bits) or "
        f"{4 * elements:,} (32 bits); use the config.json of this model, or the safetensors files"
    )
