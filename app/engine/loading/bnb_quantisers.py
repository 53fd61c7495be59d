"""Quantises to bitsandbytes' int8 and nf4, a block of rows at a time, with the results of transformers' own loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from app.engine.errors import BadCheckpoint
from app.engine.kernels import nf4_linear
from app.engine.kernels.bnb import bnb_functional, bnb_nn
from app.engine.kernels.cpu_kind import cpu_kind
from app.engine.loading.checkpoint import StoredRows
from app.engine.loading.weights import RowBlock, check_blocks, set_parameter
from app.layouts.nf4 import ABSMAX_BLOCK, NF4_BLOCK, PACKED_ROWS
from app.layouts.shape import Parameter

INT8_THRESHOLD = 6.0
"""Columns with an activation beyond it are computed in 16 bits (LLM.int8(), arXiv 2208.07339)."""


class Int8:
    """LLM.int8(): a row's weights as bytes, and its largest magnitude as float32 (bitsandbytes' `SCB`)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

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

    def finish(self) -> None:
        """Each weight is in its place already."""

    def fill(self, model: Any, rows: StoredRows, blocks: Iterator[RowBlock]) -> None:
        """Sets the parameter of `rows` from its blocks."""
        weight = torch.empty(rows.parameter.shape, dtype=torch.int8, device=self._device)
        scale = torch.empty(rows.parameter.shape[0], dtype=torch.float32, device=self._device)
        for start, end, block in blocks:
            weight[start:end], scale[start:end], _ = bnb_functional.int8_vectorwise_quant(block.to(torch.float16))
        self.set_weight(model, rows.parameter.name, weight, scale)

    def set_weight(self, model: Any, name: str, weight: torch.Tensor, scale: torch.Tensor) -> None:
        """Sets a parameter from its bytes [rows, columns] and the scale of each row."""
        value = bnb_nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False, CB=weight, SCB=scale)
        set_parameter(model, name, value)


class Nf4:
    """4-bit normal floats in blocks of 64 with quantised block scales; on the CPU if they are stored so.

    There, with AVX-512 and bf16, bitsandbytes repacks each weight in the first forward pass, which takes six bytes an
    element at once. Here each block of rows is packed when it is loaded.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self.packed = device.type == "cpu" and bool(bnb_functional.has_avx512bf16())

    def module(self, name: str, linear: torch.nn.Linear) -> Any:
        """An empty module in place of `linear`. Raises BadCheckpoint for shapes that crash or break the kernels."""
        check_blocks(name, linear)
        if self.packed and linear.out_features % PACKED_ROWS:
            text = f"{name} has {linear.out_features} rows; nf4 on this CPU needs a multiple of {PACKED_ROWS}"
            raise BadCheckpoint(f"{text}: choose another precision")
        return self._class(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            compute_dtype=self._dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )

    @property
    def _class(self) -> Any:
        if self.packed:
            return nf4_linear.PackedNf4Linear
        widens = self._device.type == "cpu" and cpu_kind() != "bf16"
        return nf4_linear.UnpackedNf4Linear if widens else bnb_nn.Linear4bit

    def finish(self) -> None:
        """Each weight is in its place already."""

    def fill(self, model: Any, rows: StoredRows, blocks: Iterator[RowBlock]) -> None:
        height, columns = rows.parameter.shape
        row_bytes, row_scales = columns // 2, columns // NF4_BLOCK
        data = torch.empty((height * row_bytes, 1), dtype=torch.uint8, device=self._device)
        absmax = torch.empty(height * row_scales, dtype=torch.float32, device=self._device)
        for start, end, block in blocks:
            codes, state = bnb_functional.quantize_4bit(
                block.contiguous(), blocksize=NF4_BLOCK, compress_statistics=False, quant_type="nf4"
            )
            absmax[start * row_scales : end * row_scales] = state.absmax
            data[start * row_bytes : end * row_bytes] = codes.view(-1, 1)
        self.set_weight(model, rows.parameter, data, self._state(absmax, height, columns))

    def set_weight(self, model: Any, parameter: Parameter, data: torch.Tensor, state: Any) -> None:
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
        """The codes of some rows in the order of the CPU's kernel; `absmax` has their block scales."""
        code = bnb_functional.get_4bit_type("nf4", device=self._device)
        state = bnb_functional.QuantState(
            absmax=absmax, shape=torch.Size(shape), dtype=self._dtype, blocksize=NF4_BLOCK, code=code, quant_type="nf4"
        )
        packed: torch.Tensor = bnb_functional._convert_weight_packed_for_cpu(codes, state)[0]
        return packed

    def _state(self, absmax: torch.Tensor, rows: int, columns: int) -> Any:
        """Quantises the scales of the whole weight, as `quantize_4bit` does."""
        offset = absmax.mean()
        small, nested = bnb_functional.quantize_blockwise(absmax - offset, blocksize=ABSMAX_BLOCK)
        return bnb_functional.QuantState(
            absmax=small,
            shape=torch.Size((rows, columns)),
            dtype=self._dtype,
            blocksize=NF4_BLOCK,
            code=bnb_functional.get_4bit_type("nf4", device=self._device),
            quant_type="nf4",
            offset=offset,
            state2=nested,
        )

    def packed_state(self, scales: torch.Tensor, rows: int, columns: int) -> Any:
        """The state of packed codes, from the float32 scale of each block."""
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
