"""Weights while they are loaded: blocks of rows; and the bytes of a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from app.engine.errors import BadCheckpoint
from app.engine.loading.checkpoint import StoredRows
from app.engine.loading.placement import DeviceMap
from app.layouts.nf4 import NF4_BLOCK
from app.layouts.registry import LOAD_PIECE_ELEMENTS

RowBlock = tuple[int, int, torch.Tensor]
"""First row of the parameter, the row after the last, and the rows between, converted and on the device."""


def set_parameter(model: Any, name: str, value: torch.Tensor) -> None:
    """Replaces the skeleton's empty tensor."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers or isinstance(value, torch.nn.Parameter):
        setattr(module, leaf, value)
    else:
        setattr(module, leaf, torch.nn.Parameter(value, requires_grad=False))


class PlainWeights:
    """Loads weights in the compute dtype."""

    def __init__(self, devices: DeviceMap, dtype: torch.dtype) -> None:
        self._devices, self._dtype = devices, dtype

    def fill(self, model: Any, stored: StoredRows, blocks: Iterator[RowBlock]) -> None:
        """Copies the blocks into the parameter, which is allocated with the first of its parts."""
        parameter = stored.parameter
        path, _, leaf = parameter.name.rpartition(".")
        target = getattr(model.get_submodule(path), leaf)
        if target.is_meta:
            dtype = torch.float32 if parameter.full_precision else self._dtype
            target = torch.empty(parameter.shape, dtype=dtype, device=self._devices.of(parameter.name))
            set_parameter(model, parameter.name, target)
        all_rows = target.data.view(parameter.rows, -1)
        for start, end, rows in blocks:
            all_rows[start:end].copy_(rows.view(end - start, -1))


def row_blocks(
    file: Any, stored: StoredRows, device: torch.device, dtype: torch.dtype, loaded: Callable[[int], None]
) -> Iterator[RowBlock]:
    """Reads stored rows from an open file, a block at a time; calls `loaded` with the stored bytes of each block."""
    rows = stored.part.rows
    row_elements = stored.part.elements // rows
    # Multiples of 64 rows: the CPU's 4-bit kernels pack so many together.
    step = max(64, LOAD_PIECE_ELEMENTS // row_elements // 64 * 64)
    source, first = file.get_slice(stored.name), stored.first_row
    for start in range(0, rows, step):
        end = min(start + step, rows)
        # Converted on the device: half the bytes to copy, and no second buffer on the host.
        block = source[first + start : first + end].to(device).to(dtype)
        yield stored.part.first_row + start, stored.part.first_row + end, block
        loaded(stored.stored_bytes * (end - start) // rows)


def check_blocks(name: str, linear: torch.nn.Linear) -> None:
    """Raises BadCheckpoint if rows are no whole number of blocks, which int4 needs on every device."""
    if linear.in_features % NF4_BLOCK:
        text = f"{name} has rows of {linear.in_features} weights; int4 needs a multiple of {NF4_BLOCK}"
        raise BadCheckpoint(f"{text}: choose another precision")


def weights_bytes(model: Any) -> int:
    """Bytes of all parameters, stored buffers quantisation states and packed weights; shared memory counts once."""
    sizes: dict[tuple[torch.device, int], int] = {}
    for weight in (*model.parameters(), *_stored_buffers(model)):
        for tensor in (weight, *_state_tensors(weight)):
            sizes[tensor.device, tensor.data_ptr()] = tensor.nbytes
    packed: int = sum(getattr(module, "packed_bytes", 0) for module in model.modules())
    return sum(sizes.values()) + packed


def _stored_buffers(model: Any) -> Iterator[torch.Tensor]:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield buffer


def _state_tensors(parameter: Any) -> Iterator[torch.Tensor]:
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    candidates = (
        getattr(parameter, "SCB", None),
        *(getattr(state, name, None) for name in ("absmax", "code", "offset")),
        *(getattr(nested, name, None) for name in ("absmax", "code")),
    )
    yield from (tensor for tensor in candidates if isinstance(tensor, torch.Tensor))
