"""Loads weights that are stored in bitsandbytes' formats, as transformers' `save_pretrained` writes them."""

from __future__ import annotations

from typing import Any

import torch

from app.engine.errors import BadCheckpoint
from app.engine.kernels.bnb import bnb_functional
from app.engine.kernels.int8_linear import LARGEST
from app.engine.loading.bnb_quantisers import Int8, Nf4
from app.engine.loading.checkpoint import CheckpointFiles, StoredRows, open_file
from app.engine.loading.cpu_quantisers import CpuInt8
from app.engine.loading.placement import DeviceMap
from app.engine.loading.quantise import swap_linear
from app.layouts.nf4 import ABSMAX_BLOCK, NF4_BLOCK, row_slices
from app.layouts.registry import LOAD_PIECE_ELEMENTS

STORED_PRECISIONS = {"int8": "int8", "nf4": "int4"}


class PrequantisedLoader:
    """Replaces the model's Linear modules by bitsandbytes' and fills them, a weight at a time.

    Raises:
        BadCheckpoint: another precision is wanted, or the tensors of a weight do not match its format.
    """

    def __init__(
        self, checkpoint: CheckpointFiles, precision: str, model: Any, devices: DeviceMap, dtype: torch.dtype
    ) -> None:
        assert checkpoint.quantised is not None
        kind, self._format = checkpoint.quantised.kind, checkpoint.quantised.format
        if STORED_PRECISIONS[kind] != precision:
            raise BadCheckpoint(f"the weights are stored as {self._format} and can't be loaded as {precision}")
        self._checkpoint, self._devices, self._dtype = checkpoint, devices, dtype
        self._quantisers = {device: _quantiser(kind, device, dtype) for device in devices.used}
        swap_linear(model, checkpoint, devices, self._quantisers)

    def fill(self, model: Any, rows: StoredRows, file: Any) -> None:
        """Sets the parameter of `rows` from its open file."""
        quantiser = self._quantisers[self._device(rows)]
        if not isinstance(quantiser, Nf4):
            self._fill_int8(model, rows, file, quantiser)
        else:
            self._fill_nf4(model, rows, file, quantiser)

    def finish(self) -> None:
        """Waits until each weight is in its place."""
        for quantiser in self._quantisers.values():
            quantiser.finish()

    def _fill_int8(self, model: Any, rows: StoredRows, file: Any, quantiser: Int8 | CpuInt8) -> None:
        prefix = rows.name.removesuffix("weight")
        order = self._side_tensor(rows, file, f"{prefix}weight_format")
        if order.sum():
            raise BadCheckpoint(f"{rows.name} is not stored row by row; save the checkpoint again")
        source, largest = file.get_slice(rows.name), self._side_tensor(rows, file, f"{prefix}SCB")
        slices = row_slices(rows.parameter.rows, rows.parameter.shape[1], LOAD_PIECE_ELEMENTS)
        if isinstance(quantiser, CpuInt8):
            scale = largest.float() / LARGEST
            quantiser.set_rows(model, rows, ((source[start:end], scale[start:end]) for start, end in slices))
            return
        weight = torch.empty(rows.parameter.shape, dtype=torch.int8, device=self._device(rows))
        for start, end in slices:
            weight[start:end] = source[start:end]
        quantiser.set_weight(model, rows.parameter.name, weight, largest)

    def _fill_nf4(self, model: Any, rows: StoredRows, file: Any, quantiser: Nf4) -> None:
        height, columns = rows.parameter.shape
        state, row_bytes, row_scales = self._state(rows, file), columns // 2, columns // NF4_BLOCK
        data = torch.empty((height * row_bytes, 1), dtype=torch.uint8, device=self._device(rows))
        scales = _block_scales(state) if quantiser.packed else None
        source = file.get_slice(rows.name)
        for start, end in row_slices(height, columns, LOAD_PIECE_ELEMENTS):
            codes = source[start * row_bytes : end * row_bytes].to(self._device(rows))
            if scales is not None:
                part = scales[start * row_scales : end * row_scales]
                codes = quantiser.pack(codes, part, (end - start, columns))
            data[start * row_bytes : end * row_bytes] = codes.view(-1, 1)
        if scales is not None:
            state = quantiser.packed_state(scales, height, columns)
        quantiser.set_weight(model, rows.parameter, data, state)

    def _state(self, rows: StoredRows, file: Any) -> Any:
        """The quantisation state in the compute dtype, checked against the weight."""
        names = [name for name in self._checkpoint.sides if name.startswith(f"{rows.name}.")]
        tensors = {name.removeprefix(f"{rows.name}."): self._side_tensor(rows, file, name) for name in names}
        try:
            state = bnb_functional.QuantState.from_dict(tensors, self._device(rows))
            form = (state.quant_type, state.blocksize, tuple(state.shape), getattr(state.state2, "blocksize", None))
        except Exception as error:  # bitsandbytes raises errors of any kind here
            raise BadCheckpoint(f"{rows.name}: its quantisation state can't be read; copy the file again") from error
        nested = ABSMAX_BLOCK if state.nested else None
        if form != ("nf4", NF4_BLOCK, rows.parameter.shape, nested):
            raise BadCheckpoint(f"{rows.name}: its quantisation state is that of another weight; copy the file again")
        state.dtype = self._dtype
        return state

    def _device(self, rows: StoredRows) -> torch.device:
        return self._devices.of(rows.parameter.name)

    def _side_tensor(self, rows: StoredRows, file: Any, name: str) -> torch.Tensor:
        """A copy of a small tensor, from whichever file holds it."""
        path = self._checkpoint.sides[name]
        if path == rows.file:
            return torch.clone(file.get_tensor(name)).to(self._device(rows))
        with open_file(path) as other:
            return torch.clone(other.get_tensor(name)).to(self._device(rows))


def _quantiser(kind: str, device: torch.device, dtype: torch.dtype) -> Int8 | CpuInt8 | Nf4:
    if kind == "nf4":
        return Nf4(device, dtype)
    return CpuInt8() if device.type == "cpu" else Int8(device)


def _block_scales(state: Any) -> torch.Tensor:
    """The scale of each block, as float32."""
    if not state.nested:
        absmax: torch.Tensor = state.absmax.float()
        return absmax
    scales: torch.Tensor = bnb_functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return scales.float()
