"""int8 weights on the CPU, by FBGEMM, with activations of 12 to 15 bits.

FBGEMM multiplies bytes by bytes, at the speed of memory for few rows; for many, with VNNI, 1.3 to 3 times as fast as
fp32 (tests/bench/cpu_products).
A byte is too coarse for activations: so each row is split into a high and a low part of a byte each, which are
multiplied as two rows and added. The scale is the row's own, and sums of integers are exact: what else is in the batch
changes nothing. Relative error of a product, root mean square: 4e-5, or 1.4e-4 without VNNI; with activations in bf16
it is 1.7e-3 (tests/unit/engine/kernels/test_int8_linear).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from app.engine.kernels.cpu_kind import packs_int8_for_avx512
from app.layouts.cpu_products import INT8_MOST_ROWS, int8_bytes

SCRIPT = """
def pack(weight: Tensor):
    return torch.ops.quantized.linear_prepack(weight, None)

def linear(
    x: Tensor, pieces: List[__torch__.torch.classes.quantized.LinearPackedParamsBase], bias: Optional[Tensor],
    least: Tensor, levels: float, offset: int
):
    wide = x.float()
    scale = torch.add(least, wide.abs().amax([1], True), alpha=1.0 / levels)
    parts = wide / scale
    high = parts.round()
    both = torch.cat([high, parts.sub_(high).mul_(2.0 * levels)])
    outputs: List[Tensor] = []
    for piece in pieces:
        outputs.append(
            torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(both, 1.0, offset, piece)
        )
    product = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
    rows = x.size(0)
    result = torch.add(product[:rows], product[rows:], alpha=0.5 / levels)
    if bias is not None:
        return torch.addcmul(bias, result, scale).to(x.dtype)
    return result.mul_(scale).to(x.dtype)
"""
"""TorchScript: four fifths of the time of the same calls from Python at 1 row, and packing does not hold the GIL."""

LARGEST = 127
"""The magnitude of a row's largest weight."""
LEAST_SCALE = torch.tensor([1e-30])
"""Added to a row's scale, so that a row of zeros has one."""


class Int8Linear(torch.nn.Module):
    """x·Wᵀ + b, [..., in] to [..., out]; W is bytes with a scale for each row, in one or several packed pieces."""

    def __init__(self, in_features: int, out_features: int, bias: torch.nn.Parameter | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        self.pieces: list[Any] = []
        """FBGEMM's packed weights, of some rows each, in their order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product, in the dtype of `x`."""
        levels, offset = activation_levels()
        flat = x.reshape(-1, self.in_features)
        results: list[torch.Tensor] = [
            _script().linear(rows, self.pieces, self.bias, LEAST_SCALE, levels, offset)
            for rows in torch.split(flat, INT8_MOST_ROWS)
        ]
        result = results[0] if len(results) == 1 else torch.cat(results)
        return result.view(*x.shape[:-1], self.out_features)

    @property
    def packed_bytes(self) -> int:
        """What the packed weight takes."""
        return int8_bytes(self.out_features, self.in_features, packs_int8_for_avx512())


def quantised_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as int8, and the fp32 scale of each; of a row that is not finite the scale isn't either."""
    wide = weight.float()
    largest = wide.abs().amax(1)
    scale = torch.where(largest == 0, 1.0, largest / LARGEST)
    return wide.div(scale[:, None]).round_().to(torch.int8), scale


def pack_rows(weight: torch.Tensor, scale: torch.Tensor) -> Any:
    """FBGEMM's packed form of int8 rows [rows, columns], each with its fp32 scale. It takes 9 ns an element."""
    zeros = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():  # deprecated, for a release of torch that is not pinned here
        warnings.simplefilter("ignore", UserWarning)
        quantised = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    return _script().pack(quantised)


def joined(parts: Sequence[Int8Linear]) -> Int8Linear:
    """One product with the outputs of all, whose activations are split once."""
    biases: list[torch.Tensor] = [part.bias for part in parts if part.bias is not None]
    bias = torch.nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
    module = Int8Linear(parts[0].in_features, sum(part.out_features for part in parts), bias)
    module.pieces = [piece for part in parts for piece in part.pieces]
    return module


@functools.cache
def _script() -> Any:
    torch.backends.quantized.engine = "fbgemm"
    return torch.jit.CompilationUnit(SCRIPT)


@functools.cache
def activation_levels() -> tuple[float, int]:
    """The largest magnitude of an activation's parts, and the value of a byte that stands for 0.

    Without VNNI, two products of bytes are added in 16 bits, which hold them only if activations have 7 bits. What the
    processor does is tried out, since FBGEMM may also be told to use less than it has.
    """
    ones = torch.full((2, 2), 127, dtype=torch.int8)
    packed = pack_rows(ones, torch.ones(2))
    outcome: torch.Tensor = _script().linear(torch.ones(1, 2), [packed], None, LEAST_SCALE, 127.0, 128)
    return (127.0, 128) if torch.equal(outcome, torch.full((1, 2), 254.0)) else (63.0, 64)
