"""Weights on their way into a model: blocks of rows, and what a loaded model holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from app.engine.loading.checkpoint import StoredTensor
from app.engine.loading.placement import Placement
from app.layouts.registry import LOAD_PIECE_ELEMENTS

Piece = tuple[int, int, torch.Tensor]
"""First row of the parameter, row behind the last, and the rows between, converted and on the device."""


def set_parameter(model: Any, name: str, value: torch.Tensor) -> None:
    """Puts a tensor where the skeleton's empty one was."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers or isinstance(value, torch.nn.Parameter):
        setattr(module, leaf, value)
    else:
        setattr(module, leaf, torch.nn.Parameter(value, requires_grad=False))


class _Plain:
    """Weights in the compute dtype."""

    def __init__(self, place: Placement, dtype: torch.dtype) -> None:
        self._place, self._dtype = place, dtype

    def fill(self, model: Any, stored: StoredTensor, pieces: Iterator[Piece]) -> None:
        """Copies the pieces into memory of their own, made at the first of a parameter's parts."""
        parameter = stored.parameter
        path, _, leaf = parameter.name.rpartition(".")
        target = getattr(model.get_submodule(path), leaf)
        if target.is_meta:
            dtype = torch.float32 if parameter.full_precision else self._dtype
            target = torch.empty(parameter.shape, dtype=dtype, device=self._place.of(parameter.name))
            set_parameter(model, parameter.name, target)
        rows_of_all = target.data.view(parameter.rows, -1)
        for start, end, rows in pieces:
            rows_of_all[start:end].copy_(rows.view(end - start, -1))


def _pieces(
    opened: Any, stored: StoredTensor, device: torch.device, dtype: torch.dtype, loaded: Callable[[int], None]
) -> Iterator[Piece]:
    rows = stored.part.rows
    per_row = stored.part.elements // rows
    # Multiples of 32 rows: the CPU's 4-bit kernel packs so many together.
    step = max(32, LOAD_PIECE_ELEMENTS // per_row // 32 * 32)
    source, first = opened.get_slice(stored.name), stored.first_row
    for start in range(0, rows, step):
        end = min(start + step, rows)
        # In the file's dtype until it is on the device: half the bytes to copy, and no second host buffer.
        piece = source[first + start : first + end].to(device).to(dtype)
        yield stored.part.first_row + start, stored.part.first_row + end, piece
        loaded(stored.stored_bytes * (end - start) // rows)


def weights_bytes(model: Any) -> int:
    """Bytes of all parameters, stored buffers and quantisation states, each piece of memory counted once."""
    seen: dict[tuple[torch.device, int], int] = {}
    for weight in (*model.parameters(), *_stored_buffers(model)):
        for tensor in (weight, *_states(weight)):
            seen[tensor.device, tensor.data_ptr()] = tensor.nbytes
    return sum(seen.values())


def _stored_buffers(model: Any) -> Iterator[torch.Tensor]:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield buffer


def _states(parameter: Any) -> Iterator[torch.Tensor]:
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    candidates = (
        getattr(parameter, "SCB", None),
        *(getattr(state, name, None) for name in ("absmax", "code", "offset")),
        *(getattr(nested, name, None) for name in ("absmax", "code")),
    )
    yield from (tensor for tensor in candidates if isinstance(tensor, torch.Tensor))
