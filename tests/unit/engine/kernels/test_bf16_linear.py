"""bf16 products on a CPU without bf16: equal to those in fp32 but for the rounding of the output, in each form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from app.engine.kernels import bf16_linear as module
from app.engine.kernels.bf16_linear import Bf16Linear, bf16_linear, swap_bf16_linear
from app.engine.kernels.cpu_kind import FORM_CHANGES, CpuKind, cpu_kind
from app.layouts.cpu_products import WIDENED_ELEMENTS

WIDEN = FORM_CHANGES["avx512"].widen_bf16 or 0


@pytest.fixture(params=["avx512", "other"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CpuKind]:
    monkeypatch.setattr(module, "form_changes", lambda: FORM_CHANGES[request.param])
    return request.param


def operands(rows: int, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows * shape[0])
    x, weight, bias = (torch.randn(size, generator=draw) for size in ((rows, shape[1]), shape, (shape[0],)))
    return x.bfloat16(), weight.bfloat16(), bias.bfloat16()


@pytest.mark.parametrize("shape", [(1, 1), (33, 70), (300, 4096), (64, 16_640)])
@pytest.mark.parametrize("rows", [1, 2, WIDEN - 1, WIDEN, 600])
@pytest.mark.parametrize("biased", [False, True])
def test_product_is_that_in_fp32_rounded_once(kind: CpuKind, shape: tuple[int, int], rows: int, biased: bool) -> None:
    x, weight, bias = operands(rows, shape)
    output = bf16_linear(x, weight, bias if biased else None)
    exact = x.double() @ weight.double().t() + (bias.double() if biased else 0)
    # Half a unit in bf16's last place, once for the sum and once for the bias; and sums in fp32.
    bound = 2**-8 * (exact.abs() + bias.abs().double()) + 1e-5 * (x.abs().double() @ weight.abs().double().t())
    assert output.dtype == torch.bfloat16
    assert bool(((output - exact).abs() <= bound).all())


def test_a_weight_of_several_slices(kind: CpuKind) -> None:
    x, weight, _ = operands(WIDEN, (2 * WIDENED_ELEMENTS // 1024 + 100, 1024))
    exact = x.float() @ weight.float().t()
    assert torch.allclose(bf16_linear(x, weight).float(), exact, rtol=2**-8, atol=1e-3)


def test_inside_and_outside_of_inference_mode(kind: CpuKind) -> None:
    x, weight, _ = operands(600, (64, 128))
    with torch.inference_mode():
        inside = bf16_linear(x, weight)
    assert torch.equal(bf16_linear(x, weight), inside)


def test_leading_dimensions_and_other_dtypes_stay(kind: CpuKind) -> None:
    x, weight, bias = operands(6, (3, 4))
    assert bf16_linear(x.view(2, 3, 4), weight).shape == (2, 3, 3)
    assert bf16_linear(x[:1].view(1, 1, 4), weight, bias).shape == (1, 1, 3)
    assert bf16_linear(x.float(), weight.float()).dtype == torch.float32


def model() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(4, 4, device="meta"), torch.nn.Linear(4, 2, bias=False, device="meta"))


def test_linear_modules_on_the_cpu_are_replaced(kind: CpuKind) -> None:
    two = model()
    swap_bf16_linear(two, lambda name: name == "1")
    assert [type(part) for part in two] == [torch.nn.Linear, Bf16Linear]
    assert (two[1].in_features, two[1].out_features, two[1].bias) == (4, 2, None)


def test_nothing_is_replaced_where_bf16_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "form_changes", lambda: FORM_CHANGES["bf16"])
    two = model()
    swap_bf16_linear(two, lambda _: True)
    assert {type(part) for part in two} == {torch.nn.Linear}


def test_onednn_keeps_code_for_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "form_changes", lambda: FORM_CHANGES["avx512"])
    assert [rows for rows in (1, 2, 8, 16, 64) if Bf16Linear.keeps_code(rows)] == [2, 8]
    monkeypatch.setattr(module, "form_changes", lambda: FORM_CHANGES["other"])
    assert not any(map(Bf16Linear.keeps_code, (1, 2, 8, 16, 64)))


def test_this_processor_is_of_a_known_kind() -> None:
    assert cpu_kind() in FORM_CHANGES
