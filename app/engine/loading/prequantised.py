"""Weights that are stored in bitsandbytes' formats, as transformers' `save_pretrained` writes them, back in place."""

from __future__ import annotations

from typing import Any

import torch

from app.engine.errors import BadCheckpoint
from app.engine.kernels.bnb import bnb_functional
from app.engine.loading.checkpoint import Checkpoint, StoredTensor, open_file
from app.engine.loading.placement import Placement
from app.engine.loading.quantise import Int8, Nf4, swap_linear
from app.layouts.nf4 import ABSMAX_BLOCK, NF4_BLOCK, row_slices
from app.layouts.registry import LOAD_PIECE_ELEMENTS

PRECISIONS = {"int8": "int8", "nf4": "int4"}


class Restorer:
    """Swaps the model's Linear modules for bitsandbytes' and fills them, a weight at a time.

    Raises:
        BadCheckpoint: another precision is asked for, or what stands beside a weight is not what its format has.
    """

    def __init__(
        self, checkpoint: Checkpoint, precision: str, model: Any, place: Placement, dtype: torch.dtype
    ) -> None:
        assert checkpoint.quantised is not None
        kind, self._format = checkpoint.quantised.kind, checkpoint.quantised.format
        if PRECISIONS[kind] != precision:
            raise BadCheckpoint(f"the weights are stored as {self._format}; {precision} can't be made of them")
        self._checkpoint, self._place, self._dtype = checkpoint, place, dtype
        self._kinds = swap_linear(precision, model, checkpoint, place, dtype)

    def fill(self, model: Any, stored: StoredTensor, opened: Any) -> None:
        """Sets the parameter of `stored`, whose file is open."""
        form = self._kinds[self._place.of(stored.parameter.name)]
        if isinstance(form, Int8):
            self._put_int8(model, stored, opened, form)
        else:
            self._put_nf4(model, stored, opened, form)

    def _put_int8(self, model: Any, stored: StoredTensor, opened: Any, form: Int8) -> None:
        prefix = stored.name.removesuffix("weight")
        order = self._beside(stored, opened, f"{prefix}weight_format")
        if order.sum():
            raise BadCheckpoint(f"{stored.name} is not stored row by row; save the checkpoint again")
        weight = torch.empty(stored.parameter.shape, dtype=torch.int8, device=self._device(stored))
        source = opened.get_slice(stored.name)
        rows, columns = stored.parameter.shape
        for start, end in row_slices(rows, columns, LOAD_PIECE_ELEMENTS):
            weight[start:end] = source[start:end]
        form.place(model, stored.parameter.name, weight, self._beside(stored, opened, f"{prefix}SCB"))

    def _put_nf4(self, model: Any, stored: StoredTensor, opened: Any, form: Nf4) -> None:
        rows, columns = stored.parameter.shape
        state, row_bytes, row_blocks = self._state(stored, opened), columns // 2, columns // NF4_BLOCK
        data = torch.empty((rows * row_bytes, 1), dtype=torch.uint8, device=self._device(stored))
        scales = _scales(state) if form.packed else None
        source = opened.get_slice(stored.name)
        for start, end in row_slices(rows, columns, LOAD_PIECE_ELEMENTS):
            codes = source[start * row_bytes : end * row_bytes].to(self._device(stored))
            if scales is not None:
                part = scales[start * row_blocks : end * row_blocks]
                codes = form.pack(codes, part, (end - start, columns))
            data[start * row_bytes : end * row_bytes] = codes.view(-1, 1)
        if scales is not None:
            state = form.packed_state(scales, rows, columns)
        form.place(model, stored.parameter, data, state)

    def _state(self, stored: StoredTensor, opened: Any) -> Any:
        """The quantisation state in the compute dtype, checked against the weight."""
        names = [name for name in self._checkpoint.sides if name.startswith(f"{stored.name}.")]
        parts = {name.removeprefix(f"{stored.name}."): self._beside(stored, opened, name) for name in names}
        try:
            state = bnb_functional.QuantState.from_dict(parts, self._device(stored))
            found = (state.quant_type, state.blocksize, tuple(state.shape), getattr(state.state2, "blocksize", None))
        except Exception as error:  # bitsandbytes raises what it likes here
            raise BadCheckpoint(f"{stored.name}: its quantisation state can't be read; copy the file again") from error
        nested = ABSMAX_BLOCK if state.nested else None
        if found != ("nf4", NF4_BLOCK, stored.parameter.shape, nested):
            raise BadCheckpoint(f"{stored.name}: its quantisation state is another weight's; copy the file again")
        state.dtype = self._dtype
        return state

    def _device(self, stored: StoredTensor) -> torch.device:
        return self._place.of(stored.parameter.name)

    def _beside(self, stored: StoredTensor, opened: Any, name: str) -> torch.Tensor:
        """A small tensor in memory of its own, from whichever file it lies in."""
        file = self._checkpoint.sides[name]
        if file == stored.file:
            return torch.clone(opened.get_tensor(name)).to(self._device(stored))
        with open_file(file) as other:
            return torch.clone(other.get_tensor(name)).to(self._device(stored))


def _scales(state: Any) -> torch.Tensor:
    """A block's scale each, as float32."""
    if not state.nested:
        absmax: torch.Tensor = state.absmax.float()
        return absmax
    scales: torch.Tensor = bnb_functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return scales.float()
