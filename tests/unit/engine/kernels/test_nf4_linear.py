"""Products with packed nf4 weights: few rows by bitsandbytes' kernel, many by oneDNN with slices of the weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from app.engine.kernels import nf4_linear
from app.engine.kernels.bnb import bnb_functional, bnb_nn
from app.engine.loading.bnb_quantisers import Nf4
from app.layouts.nf4 import PACKED_ROWS, SLICE_ELEMENTS, row_slices

PACKS = bool(bnb_functional.has_avx512bf16())
"""Whether bitsandbytes' kernel for few rows runs on this CPU; the product of many rows needs no such kernel."""
SHAPES = [(96, 128), (2080, 1024), (160, 13696), (64, 64 * 1100)]
"""One slice; a whole one and a part; slices of 128 rows and a part; two of the fewest rows."""


@pytest.fixture(autouse=True)
def as_on_a_cpu_that_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bnb_functional, "has_avx512bf16", lambda: True)


def quantised(rows: int, columns: int, bias: bool = False) -> tuple[Any, torch.Tensor]:
    """A module, and its weight by bitsandbytes from the plain form, with scales of the packed one's dtype."""
    draw = torch.Generator().manual_seed(rows + columns)
    plain = torch.randn(rows, columns, generator=draw) / columns**0.5
    form = Nf4(torch.device("cpu"), torch.bfloat16)
    linear = torch.nn.Linear(columns, rows, bias, device="meta")
    module = form.module("weight", linear)
    assert isinstance(module, nf4_linear.PackedNf4Linear)
    codes, state = bnb_functional.quantize_4bit(
        plain.bfloat16(), blocksize=64, compress_statistics=False, quant_type="nf4"
    )
    state.absmax = state.absmax.bfloat16().float()
    weight = bnb_functional.dequantize_4bit(codes, state)
    packed, scales = form.pack(codes, state.absmax.clone(), (rows, columns)), state.absmax
    module.quant_state = form.packed_state(scales, rows, columns)
    module.weight = bnb_nn.Params4bit(
        packed, requires_grad=False, quant_state=module.quant_state, module=module, bnb_quantized=True
    )
    if bias:
        module.bias = torch.nn.Parameter(torch.randn(rows, generator=draw).bfloat16(), requires_grad=False)
    return module.eval(), weight


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_the_unpacked_weight_is_bitsandbytes_own(rows: int, columns: int) -> None:
    module, weight = quantised(rows, columns)
    output = nf4_linear.unpacked(module.weight.data, module.quant_state.absmax)
    assert output.dtype == torch.bfloat16 and torch.equal(output, weight.bfloat16())


@torch.inference_mode()
@pytest.mark.parametrize("many", [63, 64, 100, 300])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_any_number_of_rows_gives_the_same_product(rows: int, columns: int, many: int) -> None:
    if many < nf4_linear.MIN_ROWS and not PACKS:
        pytest.skip("this CPU's kernel does not pack 4-bit weights: it has no bf16")
    module, weight = quantised(rows, columns, bias=True)
    x = torch.randn(many, columns, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = x.float() @ weight.float().t() + module.bias.float()
    output = module(x)
    assert output.dtype == x.dtype and output.shape == (many, rows)
    assert (output.float() - expected).abs().max() < 0.05, "sums of some unit size, in bf16"
    assert torch.equal(output, module(x)), "what it keeps of one call must not matter to the next"
    assert torch.equal(module(x.view(1, many, columns)), output[None])
    assert (module(x.float()) - expected).abs().max() < 0.05


@torch.inference_mode()
def test_many_rows_go_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 512 rows bitsandbytes' kernel takes several times as long (tests/bench/serving)."""
    module, _ = quantised(96, 128)
    row_counts: list[int] = []
    multiply = torch.nn.functional.linear

    def noted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        row_counts.append(len(x))
        return multiply(x, weight)

    monkeypatch.setattr(torch.nn.functional, "linear", noted)
    for many in (*((1, 63) if PACKS else ()), 64, 128, 129, 512):
        module(torch.zeros(many, 128, dtype=torch.bfloat16))
    assert row_counts == [128, 128, 256, 512], "few sizes: each keeps compiled code"


@pytest.mark.parametrize(("rows", "columns"), [*SHAPES, (27392, 4096), (32, 64)])
def test_slices_are_the_whole_and_whole_packs(rows: int, columns: int) -> None:
    slices = list(row_slices(rows, columns))
    assert [place for start, end in slices for place in range(start, end)] == list(range(rows))
    for start, end in slices:
        assert start % PACKED_ROWS == 0
        assert end - start == PACKED_ROWS or (end - start) * columns <= SLICE_ELEMENTS
