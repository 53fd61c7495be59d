"""bitsandbytes' int8 and nf4, a piece at a time; the results equal those of transformers' own loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

from app.engine.errors import BadCheckpoint
from app.engine.kernels import int8_mixed, nf4_linear
from app.engine.kernels.bnb import bnb_functional, bnb_nn
from app.engine.loading.checkpoint import Checkpoint, StoredTensor
from app.engine.loading.placement import Placement
from app.engine.loading.weights import Piece, set_parameter
from app.layouts.nf4 import ABSMAX_BLOCK, NF4_BLOCK, PACKED_ROWS
from app.layouts.shape import Parameter

INT8_THRESHOLD = 6.0
"""Activations beyond it are computed in 16 bits (LLM.int8(), arXiv 2208.07339)."""


class Quantiser(Protocol):
    """Puts one weight of a Linear module into its quantised form."""

    def fill(self, model: Any, stored: StoredTensor, pieces: Iterator[Piece]) -> None:
        """Consumes the pieces of `stored` and sets its parameter."""


def quantiser_for(
    precision: str, model: Any, checkpoint: Checkpoint, place: Placement, dtype: torch.dtype
) -> Quantiser:
    """Swaps the model's Linear modules for bitsandbytes' and returns what fills them.

    Raises:
        BadCheckpoint: a weight's shape cannot be quantised so.
    """
    return _ByDevice(place, swap_linear(precision, model, checkpoint, place, dtype))


def swap_linear(
    precision: str, model: Any, checkpoint: Checkpoint, place: Placement, dtype: torch.dtype
) -> dict[torch.device, Int8 | Nf4]:
    """Puts bitsandbytes' empty modules where the Linear ones are; returns each device's form. Raises BadCheckpoint."""
    names = [tensor.parameter for tensor in checkpoint.tensors if tensor.parameter.linear]
    kinds: dict[torch.device, Int8 | Nf4] = {
        device: Int8(device) if precision == "int8" else Nf4(device, dtype) for device in place.devices
    }
    for parameter in names:
        module_name = parameter.name.removesuffix(".weight")
        linear = model.get_submodule(module_name)
        model.set_submodule(module_name, kinds[place.of(parameter.name)].module(parameter.name, linear))
    return kinds


class _ByDevice:
    """Each weight in the form of the device that it goes to: the CPU's 4-bit form may be another than a GPU's."""

    def __init__(self, place: Placement, kinds: Mapping[torch.device, Quantiser]) -> None:
        self._place, self._kinds = place, kinds

    def fill(self, model: Any, stored: StoredTensor, pieces: Iterator[Piece]) -> None:
        """See `Quantiser.fill`."""
        self._kinds[self._place.of(stored.parameter.name)].fill(model, stored, pieces)


class Int8:
    """LLM.int8(): a row's weights as bytes, and its largest magnitude as float32 (`SCB`)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cpu":
            int8_mixed.register()

    def module(self, _name: str, linear: torch.nn.Linear) -> Any:
        """An empty module in place of `linear`."""
        return bnb_nn.Linear8bitLt(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            has_fp16_weights=False,
            threshold=INT8_THRESHOLD,
            device="meta",
        )

    def fill(self, model: Any, stored: StoredTensor, pieces: Iterator[Piece]) -> None:
        """See `Quantiser.fill`."""
        weight = torch.empty(stored.parameter.shape, dtype=torch.int8, device=self._device)
        scale = torch.empty(stored.parameter.shape[0], dtype=torch.float32, device=self._device)
        for start, end, rows in pieces:
            weight[start:end], scale[start:end], _ = bnb_functional.int8_vectorwise_quant(rows.to(torch.float16))
        self.place(model, stored.parameter.name, weight, scale)

    def place(self, model: Any, name: str, weight: torch.Tensor, scale: torch.Tensor) -> None:
        """Sets a parameter from its bytes [rows, columns] and the scale of each row."""
        value = bnb_nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False, CB=weight, SCB=scale)
        set_parameter(model, name, value)


class Nf4:
    """4-bit normal floats in blocks of 64 with quantised block scales.

    Where the CPU has AVX-512 with bf16, bitsandbytes repacks each weight in the first forward pass, for which it
    takes six bytes an element at once. Here the pieces are packed as they come.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self.packed = device.type == "cpu" and bool(bnb_functional.has_avx512bf16())

    def module(self, name: str, linear: torch.nn.Linear) -> Any:
        """An empty module in place of `linear`. Raises BadCheckpoint for shapes that crash or break the kernels."""
        if linear.in_features % NF4_BLOCK:
            text = f"{name} has rows of {linear.in_features} weights; int4 needs a multiple of {NF4_BLOCK}"
            raise BadCheckpoint(f"{text}: choose another precision")
        if self.packed and linear.out_features % PACKED_ROWS:
            text = f"{name} has {linear.out_features} rows; int4 on this CPU needs a multiple of {PACKED_ROWS}"
            raise BadCheckpoint(f"{text}: choose another precision")
        kind = nf4_linear.PackedNf4Linear if self.packed else bnb_nn.Linear4bit
        return kind(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            compute_dtype=self._dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )

    def fill(self, model: Any, stored: StoredTensor, pieces: Iterator[Piece]) -> None:
        """See `Quantiser.fill`."""
        rows, columns = stored.parameter.shape
        row_bytes, row_blocks = columns // 2, columns // NF4_BLOCK
        data = torch.empty((rows * row_bytes, 1), dtype=torch.uint8, device=self._device)
        absmax = torch.empty(rows * row_blocks, dtype=torch.float32, device=self._device)
        for start, end, piece in pieces:
            codes, state = bnb_functional.quantize_4bit(
                piece.contiguous(), blocksize=NF4_BLOCK, compress_statistics=False, quant_type="nf4"
            )
            absmax[start * row_blocks : end * row_blocks] = state.absmax
            if self.packed:
                codes, _ = bnb_functional._convert_weight_packed_for_cpu(codes, state)
            data[start * row_bytes : end * row_bytes] = codes.view(-1, 1)
        self.place(model, stored.parameter, data, self._state(absmax, rows, columns))

    def place(self, model: Any, parameter: Parameter, data: torch.Tensor, state: Any) -> None:
        """Sets a parameter from its codes [bytes, 1] and their state."""
        module = model.get_submodule(parameter.name.removesuffix(".weight"))
        value = bnb_nn.Params4bit(
            data.view(parameter.rows, -1) if self.packed else data,
            requires_grad=False,
            quant_state=state,
            blocksize=NF4_BLOCK,
            compress_statistics=True,
            quant_type="nf4",
            module=module,
            bnb_quantized=True,
        )
        module.quant_state = state
        set_parameter(model, parameter.name, value)

    def pack(self, codes: torch.Tensor, absmax: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """The codes of some rows in the order of the CPU's kernel."""
        code = bnb_functional.get_4bit_type("nf4", device=self._device)
        state = bnb_functional.QuantState(
            absmax=absmax, shape=torch.Size(shape), dtype=self._dtype, blocksize=NF4_BLOCK, code=code, quant_type="nf4"
        )
        packed: torch.Tensor = bnb_functional._convert_weight_packed_for_cpu(codes, state)[0]
        return packed

    def _state(self, absmax: torch.Tensor, rows: int, columns: int) -> Any:
        """Quantises the scales of the whole weight, as `quantize_4bit` does; packed ones are then stored as bf16."""
        offset = absmax.mean()
        small, nested = bnb_functional.quantize_blockwise(absmax - offset, blocksize=ABSMAX_BLOCK)
        if not self.packed:
            code = bnb_functional.get_4bit_type("nf4", device=self._device)
            return bnb_functional.QuantState(
                absmax=small,
                shape=torch.Size((rows, columns)),
                dtype=self._dtype,
                blocksize=NF4_BLOCK,
                code=code,
                quant_type="nf4",
                offset=offset,
                state2=nested,
            )
        return self.packed_state(bnb_functional.dequantize_blockwise(small, nested) + offset, rows, columns)

    def packed_state(self, scales: torch.Tensor, rows: int, columns: int) -> Any:
        """The state of packed codes, from a float32 scale a block."""
        code = bnb_functional.get_4bit_type("nf4", device=self._device)
        state = bnb_functional.QuantState(
            absmax=scales.view(rows, columns // NF4_BLOCK).T.to(torch.bfloat16).contiguous(),
            shape=torch.Size((rows, columns)),
            dtype=torch.bfloat16,
            blocksize=NF4_BLOCK,
            code=code,
            quant_type="nf4",
        )
        state.packing_format_for_cpu = True
        return state
