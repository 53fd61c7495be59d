"""int4 products on the CPU: equal to those of the dequantised weight, for any rows and shapes."""

from __future__ import annotations

import pytest
import torch

from app.engine.kernels import int4_linear
from app.engine.kernels.cpu_kind import CpuKind, form_changes
from app.engine.kernels.int4_linear import Int4Linear, joined, packed_codes, quantised
from app.layouts.cpu_products import INT4_GROUP, int4_bytes, int4_rows

MANY_ROWS = form_changes().unpack_int4


def module_of(rows: int, columns: int, biased: bool = False) -> tuple[Int4Linear, torch.Tensor]:
    """A module, and its dequantised weight."""
    draw = torch.Generator().manual_seed(rows * columns)
    bias = torch.nn.Parameter(torch.randn(rows, generator=draw), requires_grad=False) if biased else None
    module = Int4Linear(columns, rows, bias)
    codes, groups = quantised(torch.randn(rows, columns, generator=draw) * 0.02)
    padding = int4_rows(rows) - rows
    module.codes = packed_codes(torch.nn.functional.pad(codes, (0, 0, 0, padding)))
    module.groups = torch.nn.functional.pad(groups, (0, 0, 0, 0, 0, padding)).transpose(0, 1).contiguous()
    return module, dequantised(codes, groups)


def dequantised(codes: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    scale, zero = groups.float().unbind(-1)
    parts = codes.float().view(*scale.shape, INT4_GROUP)
    return ((parts - 8) * scale[..., None] + zero[..., None]).view(codes.shape)


@pytest.mark.parametrize(("rows", "columns"), [(1, 64), (48, 128), (100, 192), (256, 512), (4160, 256)])
@pytest.mark.parametrize("count", [1, 4, 33, MANY_ROWS - 1, MANY_ROWS, 600])
@pytest.mark.parametrize("kind", ["avx512", "bf16"])
def test_product_is_that_of_the_dequantised_weight(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, count: int, kind: CpuKind
) -> None:
    monkeypatch.setattr(int4_linear, "cpu_kind", lambda: kind)
    module, weight = module_of(rows, columns, biased=True)
    x = torch.randn(count, columns, generator=torch.Generator().manual_seed(count))
    exact = x.double() @ weight.double().t()
    output = module(x) - module.bias
    # Activations, and for few rows outputs, are rounded to bf16: 2 ** -8 each.
    bound = 2**-8 * (x.abs().double() @ weight.abs().double().t()) + 2**-7 * exact.abs()
    assert output.shape == (count, rows)
    assert bool(((output - exact).abs() <= bound + 1e-6).all())


def test_range_of_least_error_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(64, 1024, generator=torch.Generator().manual_seed(5))

    def error() -> float:
        return float((dequantised(*quantised(weight)) - weight).norm() / weight.norm())

    searched = error()
    monkeypatch.setattr(int4_linear, "RANGES", (1.0,))
    assert searched < 0.985 * error()
    assert searched < 0.089  # bitsandbytes' nf4 with nested scales: 0.092


def test_constant_and_zero_groups_keep_their_value() -> None:
    weight = torch.zeros(2, 128)
    weight[1, 64:] = 0.25
    assert torch.equal(dequantised(*quantised(weight)), weight)


def test_dtype_and_leading_dimensions_are_those_of_the_input() -> None:
    module, _ = module_of(48, 64)
    output = module(torch.zeros(2, 3, 64, dtype=torch.bfloat16))
    assert (output.shape, output.dtype) == ((2, 3, 48), torch.bfloat16)


@pytest.mark.parametrize("count", [3, MANY_ROWS])
def test_what_is_not_finite_stays_so(count: int) -> None:
    module, _ = module_of(64, 64)
    x = torch.ones(count, 64)
    x[1, 5] = float("nan")
    finite = module(x).isfinite().all(dim=1)
    assert (bool(finite[0]), bool(finite[1])) == (True, False)


def test_joined_products_are_those_of_the_parts() -> None:
    parts = [module_of(rows, 128, biased=True)[0] for rows in (128, 64, 64)]
    whole = joined(parts)
    assert whole is not None
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(3))
    assert torch.equal(whole(x), torch.cat([part(x) for part in parts], dim=-1))
    assert joined([*parts, module_of(16, 128)[0]]) is None


def test_bytes_are_what_the_plan_counts() -> None:
    module, _ = module_of(100, 192)
    assert module.codes.nbytes + module.groups.nbytes == int4_bytes(100, 192)
