"""int8 products on the CPU: equal to those of the dequantised weight, for any rows and shapes, alone and in a batch."""

from __future__ import annotations

import pytest
import torch

from app.engine.kernels import int8_linear
from app.engine.kernels.cpu_kind import packs_int8_for_avx512
from app.engine.kernels.int8_linear import Int8Linear, activation_levels, joined, pack_rows, quantised_rows
from app.layouts.cpu_products import int8_bytes

LEVELS, _ = activation_levels()
# A part's rounding is at most half a level of 1 / (2 * LEVELS) of the row's largest activation.
TOLERANCE = 0.25 / LEVELS**2


def module_of(rows: int, columns: int, biased: bool = False) -> tuple[Int8Linear, torch.Tensor]:
    """A module in pieces of at most 48 rows, and its dequantised weight."""
    draw = torch.Generator().manual_seed(rows * columns)
    weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=draw)
    scale = torch.rand(rows, generator=draw) * 0.01 + 1e-4
    bias = torch.nn.Parameter(torch.randn(rows, generator=draw), requires_grad=False) if biased else None
    module = Int8Linear(columns, rows, bias)
    module.pieces = [pack_rows(weight[start : start + 48], scale[start : start + 48]) for start in range(0, rows, 48)]
    return module, weight.float() * scale[:, None]


def bound(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The most that rounding the activations may change each element, and a little for sums in fp32."""
    largest = x.abs().amax(-1, keepdim=True).double()
    rounding = TOLERANCE * largest * weight.abs().sum(1).double()
    return rounding + 1e-5 * (x.abs().double() @ weight.abs().double().t())


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 3), (33, 70), (96, 200), (48, 512), (100, 1100)])
@pytest.mark.parametrize("count", [1, 2, 16, 127, 129, 600])
def test_product_is_that_of_the_dequantised_weight(rows: int, columns: int, count: int) -> None:
    module, weight = module_of(rows, columns, biased=True)
    x = torch.randn(count, columns, generator=torch.Generator().manual_seed(count))
    x[0] *= 100
    exact = x.double() @ weight.double().t()
    with torch.inference_mode():
        output = module(x) - module.bias
    assert bool(((output - exact).abs() <= bound(x, weight) + 1e-6).all())


def test_relative_error_is_below_that_of_bf16_activations() -> None:
    module, weight = module_of(256, 1024)
    x = torch.randn(64, 1024, generator=torch.Generator().manual_seed(1))
    exact = x.double() @ weight.double().t()

    def error(output: torch.Tensor) -> float:
        return float((output.double() - exact).norm() / exact.norm())

    assert error(module(x)) < 0.15 * error(x.bfloat16().double() @ weight.double().t())


def test_largest_products_do_not_overflow() -> None:
    weight = torch.full((8, 512), 127, dtype=torch.int8)
    module = Int8Linear(512, 8, None)
    module.pieces = [pack_rows(weight, torch.ones(8))]
    assert torch.allclose(module(torch.ones(3, 512)), torch.full((3, 8), 127.0 * 512), rtol=1e-6)


def test_a_row_does_not_depend_on_its_batch() -> None:
    module, _ = module_of(96, 256)
    x = torch.randn(140, 256, generator=torch.Generator().manual_seed(2))
    x[7] *= 1000
    alone = torch.cat([module(row[None]) for row in x])
    assert torch.equal(module(x), alone)


def test_dtype_and_leading_dimensions_are_those_of_the_input() -> None:
    module, _ = module_of(48, 64)
    output = module(torch.zeros(2, 3, 64, dtype=torch.bfloat16))
    assert (output.shape, output.dtype) == ((2, 3, 48), torch.bfloat16)
    assert not output.any()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(broken: float) -> None:
    module, _ = module_of(8, 64)
    x = torch.ones(3, 64)
    x[1, 5] = broken
    assert module(x).isfinite().all(dim=1).tolist() == [True, False, True]


def test_joined_products_are_those_of_the_parts() -> None:
    parts = [module_of(rows, 128, biased=True)[0] for rows in (96, 16, 16)]
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(3))
    assert torch.equal(joined(parts)(x), torch.cat([part(x) for part in parts], dim=-1))


def test_packed_bytes_are_what_the_plan_counts() -> None:
    module, _ = module_of(100, 1000)
    assert module.packed_bytes == int8_bytes(100, 1000, packs_int8_for_avx512())
    assert (int8_bytes(100, 1000, True), int8_bytes(100, 1000, False)) == (144 * 1024 + 1200, 104 * 1024 + 1200)


def test_the_parts_of_an_activation_fit_the_processor() -> None:
    assert int8_linear.activation_levels() in ((127.0, 128), (63.0, 64))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_damaged_weight_shows_in_the_product(broken: float) -> None:
    weight = torch.ones(8, 64)
    weight[3, 5] = broken
    module = Int8Linear(64, 8, None)
    module.pieces = [pack_rows(*quantised_rows(weight))]
    assert module(torch.ones(1, 64)).isfinite().tolist() == [[number != 3 for number in range(8)]]


def test_a_row_of_zeros_stays_so() -> None:
    module = Int8Linear(64, 2, None)
    module.pieces = [pack_rows(*quantised_rows(torch.zeros(2, 64)))]
    assert not module(torch.ones(1, 64)).any()
