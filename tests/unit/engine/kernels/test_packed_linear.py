"""Packed bf16 products: the same results as plain ones; weights that can't be packed stay plain."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.engine.kernels import packed_linear
from app.engine.kernels.packed_linear import PackedLinear, can_pack, pack_linear

needs_bf16 = pytest.mark.skipif(not can_pack(), reason="this processor or build of torch has no packed bf16 products")
ROOM = 1 << 20


def linear(inputs: int, outputs: int, bias: bool = False, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Linear:
    torch.manual_seed(inputs + outputs)
    return torch.nn.Linear(inputs, outputs, bias, dtype=dtype).requires_grad_(False)


def model(**parts: torch.nn.Module) -> Any:
    whole = torch.nn.Module()
    whole.model = torch.nn.Module()
    whole.model.embed_tokens = torch.nn.Embedding(192, 128, dtype=torch.bfloat16)
    for name, part in parts.items():
        setattr(whole, name, part)
    return whole


@needs_bf16
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 16, 33, 64, 200])
def test_a_packed_product_is_the_plain_one(rows: int, bias: bool) -> None:
    plain = linear(256, 192, bias)
    x = torch.randn(rows, 256, dtype=torch.bfloat16)
    assert torch.allclose(PackedLinear(plain)(x), plain(x), atol=2e-2, rtol=2e-2)
    assert not torch.allclose(PackedLinear(linear(256, 192, True))(x), linear(256, 192)(x), atol=2e-2, rtol=2e-2)


@needs_bf16
@torch.inference_mode()
def test_three_dimensions_stay_three() -> None:
    plain, x = linear(128, 64), torch.randn(2, 3, 128, dtype=torch.bfloat16)
    assert torch.allclose(PackedLinear(plain)(x), plain(x), atol=2e-2, rtol=2e-2)


@needs_bf16
def test_only_what_has_room_and_fits_is_packed() -> None:
    class Own(torch.nn.Linear):
        """Some other kind of product, as bitsandbytes' are."""

    whole = model(
        fine=linear(128, 192),
        large=linear(1024, 1024),
        odd=linear(128, 100),
        wide=linear(128, 192, dtype=torch.float32),
        own=Own(128, 192, dtype=torch.bfloat16),
        lm_head=linear(128, 192),
    )
    whole.lm_head.weight = whole.model.embed_tokens.weight
    assert pack_linear(whole, ROOM) == 1
    assert [name for name, part in whole.named_modules() if isinstance(part, PackedLinear)] == ["fine"]
    assert pack_linear(model(large=linear(1024, 1024)), 2 * ROOM) == 1


def test_nothing_is_packed_where_torch_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model(fine=linear(128, 192))
    before = copy.deepcopy(whole.state_dict())
    monkeypatch.setattr(packed_linear.torch, "ops", SimpleNamespace(mkldnn=SimpleNamespace()))
    assert not can_pack()
    assert pack_linear(whole, ROOM) == 0
    assert torch.equal(whole.fine.weight, before["fine.weight"])


@needs_bf16
def test_a_product_that_is_computed_in_slices_stays_so() -> None:
    """Latent attention's, see `latent_slices`; packed, it would be one product of any number of rows again."""
    sliced, plain = linear(64, 128), linear(64, 128)
    forward = sliced.forward
    sliced.forward = lambda x: forward(x)  # type: ignore[method-assign]
    whole = model(sliced=sliced, plain=plain)
    assert pack_linear(whole, ROOM) == 1
    assert whole.sliced is sliced and isinstance(whole.plain, PackedLinear)
