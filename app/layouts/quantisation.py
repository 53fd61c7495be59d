"""Checkpoints whose weights are stored quantised, as config.json's `quantization_config` describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.layouts.config_fields import LayoutError
from app.layouts.nf4 import ABSMAX_BLOCK, NF4_BLOCK
from app.layouts.shape import Parameter

STATE = "quant_state.bitsandbytes__nf4"
SCALE_SUFFIXES = ("_scale_inv", "_scale", ".input_scale", ".input_scale_inv")
"""FP8: scales beside a weight; transformers writes `weight_scale_inv`, compressed-tensors `weight_scale`."""

Kind = Literal["nf4", "int8", "fp8", "other"]


@dataclass(frozen=True)
class Quantised:
    """How the linear weights are stored. `kind` is what the engine distinguishes, `format` the name for users."""

    kind: Kind
    format: str
    double: bool = False
    """nf4: whether the block scales are quantised too."""

    def tensors(self, name: str, parameter: Parameter) -> Mapping[str, tuple[str, int | None]]:
        """The tensors that hold a linear weight in bitsandbytes' formats: first its own, then scales and state.

        Returns safetensors' dtype and the bytes by name, as bitsandbytes 0.50.2 writes them. The 4-bit state is JSON
        of any length (None), int8's row order a byte.
        """
        prefix = name.removesuffix("weight")
        if self.kind == "int8":
            scale = {f"{prefix}SCB": ("F32", 4 * parameter.rows), f"{prefix}weight_format": ("U8", 1)}
            return {name: ("I8", parameter.elements), **scale}
        blocks = math.ceil(parameter.elements / NF4_BLOCK)
        tensors: dict[str, tuple[str, int | None]] = {name: ("U8", math.ceil(parameter.elements / 2))}
        tensors |= {f"{name}.{STATE}": ("U8", None), f"{name}.quant_map": ("F32", 64)}
        if not self.double:
            return tensors | {f"{name}.absmax": ("F32", 4 * blocks)}
        nested = {f"{name}.nested_absmax": ("F32", 4 * math.ceil(blocks / ABSMAX_BLOCK))}
        return tensors | nested | {f"{name}.nested_quant_map": ("F32", 1024), f"{name}.absmax": ("U8", blocks)}


def quantised_of(config: Mapping[str, Any]) -> Quantised | None:
    """How the weights are stored, by a parsed config.json; None if they are floats. Raises LayoutError."""
    fields = config.get("quantization_config")
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise LayoutError("quantization_config is not an object; take the checkpoint's own config.json")
    method = str(fields.get("quant_method"))[:40]
    if method == "bitsandbytes":
        return _bitsandbytes(fields)
    if method == "fp8":
        return Quantised("fp8", "FP8")
    if method == "compressed-tensors":
        return _compressed(fields)
    bits = fields.get("bits")
    return Quantised("other", method.upper() + (f" {bits}-bit" if type(bits) is int else ""))


def _bitsandbytes(fields: Mapping[str, Any]) -> Quantised:
    if fields.get("load_in_8bit") is True:
        return Quantised("int8", "bitsandbytes int8")
    kind, storage = str(fields.get("bnb_4bit_quant_type"))[:20], str(fields.get("bnb_4bit_quant_storage", "uint8"))[:20]
    if fields.get("load_in_4bit") is not True or kind != "nf4" or storage != "uint8":
        return Quantised("other", f"bitsandbytes {kind} in {storage}")
    return Quantised("nf4", "bitsandbytes nf4", double=fields.get("bnb_4bit_use_double_quant") is True)


def _compressed(fields: Mapping[str, Any]) -> Quantised:
    """FP8 if all groups are 8-bit floats, as in the published GLM FP8 checkpoints."""
    groups = fields.get("config_groups")
    weights = [group.get("weights") for group in groups.values()] if isinstance(groups, dict) else []
    if weights and all(isinstance(w, dict) and (w.get("num_bits"), w.get("type")) == (8, "float") for w in weights):
        return Quantised("fp8", "FP8 (compressed-tensors)")
    return Quantised("other", f"compressed-tensors {str(fields.get('format'))[:40]}")


def floats_only(config: Mapping[str, Any]) -> None:
    """For files that can't be opened: raises LayoutError if the checkpoint is stored quantised."""
    if quantised := quantised_of(config):
        raise LayoutError(
            f"quantization_config says {quantised.format}: quantised weights are counted from the headers of "
            "safetensors files; take those, or the 16-bit checkpoint"
        )
