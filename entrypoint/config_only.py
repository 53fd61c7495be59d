"""A checkpoint made from its config.json alone: what its files would hold, where there are none to look into."""

from __future__ import annotations

from collections.abc import Mapping

from app.layouts.config_fields import LayoutError
from app.layouts.quantisation import floats_only
from app.layouts.registry import layout_of, shape_of
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint import Checkpoint, CheckpointError
from entrypoint.headers import DTYPE_BYTES, Tensor
from entrypoint.torch_index import DTYPES


def checkpoint_from_config(config: Mapping[str, object], name: str = "config.json") -> Checkpoint:
    """Every tensor that the config asks for, in its `dtype` (bfloat16 where it names none).

    Raises:
        CheckpointError: the config is of no layout that is known, or lacks a field; `name` is what it is called.
    """
    try:
        floats_only(config)
        layout, shape = layout_of(config), shape_of(config)
    except LayoutError as error:
        raise CheckpointError(f"{name}: {error}") from error
    dtype = DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "BF16")
    tensors = {}
    for stored in stored_tensors(layout, shape):
        kind = "F32" if stored.parts[0].parameter.full_precision else dtype
        tensors[stored.name] = Tensor("", kind, stored.shape, stored.elements * DTYPE_BYTES[kind])
    return Checkpoint(layout, shape, tensors)
