from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.layouts.registry import LAYOUTS, layout_of, shape_of
from app.layouts.shape import Shape
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint.safetensors_header import CheckpointError
from entrypoint.checkpoint.torch_index import tensors_from_total
from tests.sparse import CHATGLM3_6B, config_for

INV_FREQ = "transformer.rotary_pos_emb.inv_freq"


def index_of(shape: Shape, width: int, extra: tuple[str, ...] = (), more: int = 0) -> dict[str, Any]:
    stored = stored_tensors(LAYOUTS["chatglm"], shape)
    total = width * sum(part.elements for tensor in stored for part in tensor.parts)
    names = [tensor.name for tensor in stored] + list(extra)
    files = {name: f"pytorch_model-0000{number % 7 + 1}-of-00007.bin" for number, name in enumerate(names)}
    return {"metadata": {"total_size": total + more}, "weight_map": files}


@pytest.mark.parametrize(("width", "dtype"), [(2, "F16"), (4, "F32")])
def test_chatglm3_6b_from_its_index_alone(width: int, dtype: str) -> None:
    index = index_of(CHATGLM3_6B, width, (INV_FREQ,), more=32 * width)
    config = config_for(CHATGLM3_6B, "chatglm") | {"torch_dtype": "float16"}
    tensors = tensors_from_total("index.json", index, config)
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert sum(tensor.bytes for tensor in tensors.values()) == width * 6_243_584_000
    expected = stored_tensors(layout_of(config), shape_of(config))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {t.name: t.shape for t in expected}


def test_a_tied_output_layer_may_be_stored_or_not() -> None:
    tied = replace(CHATGLM3_6B, tied=True)
    config = config_for(tied, "chatglm") | {"dtype": "bfloat16"}
    head = "transformer.output_layer.weight"
    for index in (
        index_of(tied, 2),
        index_of(tied, 2, (head,)),
        index_of(tied, 2, (head,), more=2 * tied.vocab * tied.hidden),
    ):
        tensors = tensors_from_total("index.json", index, config)
        assert head not in tensors
        assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}


def without(name: str) -> dict[str, Any]:
    index = index_of(CHATGLM3_6B, 2)
    del index["weight_map"][name]
    return index


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (index_of(CHATGLM3_6B, 2, more=64), "total_size is 12,487,168,064 bytes, but the shapes of config.json give"),
        (index_of(CHATGLM3_6B, 2, (INV_FREQ,), more=10**9), "use the config.json of this model"),
        (index_of(CHATGLM3_6B, 1), "use the config.json of this model"),
        (index_of(CHATGLM3_6B, 2) | {"metadata": {}}, "total_size is None"),
        (index_of(CHATGLM3_6B, 2) | {"metadata": {"total_size": float("nan")}}, "total_size is nan"),
        (index_of(CHATGLM3_6B, 2) | {"metadata": {"total_size": 1 << 70}}, "total_size is 11805"),
        (without("transformer.encoder.final_layernorm.weight"), "final_layernorm.weight is missing"),
        ({"metadata": {"total_size": 1}, "weight_map": {"a": "../b"}}, "not a file name"),
        ({}, "weight_map must name"),
    ],
)
def test_an_index_that_disagrees_is_refused(index: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        tensors_from_total("somewhere/index.json", index, config_for(CHATGLM3_6B, "chatglm"))
    assert str(caught.value).startswith("somewhere/index.json")
    assert "\n" not in str(caught.value)


def test_a_config_of_another_model_is_named() -> None:
    with pytest.raises(CheckpointError, match="model_type is 'llama'"):
        tensors_from_total("index.json", index_of(CHATGLM3_6B, 2), {"model_type": "llama"})
