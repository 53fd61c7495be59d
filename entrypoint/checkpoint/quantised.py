"""Checkpoints that are stored quantised: that their files hold what config.json says, and what they load to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.contract.plan import Precision
from app.layouts.layout import Layout
from app.layouts.quantisation import SCALE_SUFFIXES, Quantised
from app.layouts.shape import Shape
from app.layouts.shape import StoredTensor as Expected
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint.safe_open import CheckpointError
from entrypoint.checkpoint.safetensors_header import Tensor
from entrypoint.units import size

FLOATS = ("BF16", "F16", "F32")
FP8 = "F8_E4M3"
PRECISIONS: Mapping[str, Precision] = {"nf4": "int4", "int8": "int8", "fp8": "fp8"}


@dataclass(frozen=True)
class Stored:
    """How the weights are stored; the ladder is this one rung."""

    format: str
    """For people."""
    precision: Precision
    double_quant: bool
    bytes: int
    """Of the tensors that a loader reads."""


def check_stored(
    place: str, layout: Layout, shape: Shape, tensors: Mapping[str, Tensor], quantised: Quantised
) -> Stored:
    """Compares headers with what the format would hold for each tensor of the layout; `place` is what messages name.

    Raises:
        CheckpointError: the format can't be read here, or a tensor is missing or is something else.
    """
    loaded = {name: tensor for name, tensor in tensors.items() if not layout.ignores(name, shape)}
    count = sum(tensor.bytes for tensor in loaded.values())
    if quantised.kind == "other" or layout.names:
        raise CheckpointError(
            f"{place} is stored as {quantised.format} ({size(count)}), which this engine can't read for "
            f"{layout.model_type}; take the 16-bit checkpoint, which is quantised to int8 or int4 while it loads"
        )
    known: set[str] = set()
    for expected in stored_tensors(layout, shape):
        names = _fp8(place, expected, loaded) if quantised.kind == "fp8" else _bnb(place, expected, loaded, quantised)
        known.update(names)
    strange = next((name for name in loaded if name not in known), None)
    if strange is not None:
        raise CheckpointError(
            f"{place}: tensor {strange[:80]!r} is not part of a {layout.model_type} model stored as {quantised.format}"
        )
    return Stored(quantised.format, PRECISIONS[quantised.kind], quantised.double, count)


def check_float(place: str, expected: Expected, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError where a tensor is missing, has another shape or is no float that the engine reads."""
    tensor, name = tensors.get(expected.name), expected.name
    if tensor is None:
        raise CheckpointError(f"{place}: tensor {name} is missing; take a whole checkpoint")
    if tensor.shape != expected.shape:
        raise CheckpointError(f"{place}: tensor {name} has shape {tensor.shape}, config.json says {expected.shape}")
    if tensor.dtype not in FLOATS:
        raise CheckpointError(
            f"{place}: tensor {name} is stored as {tensor.dtype}, not as one of {', '.join(FLOATS)}; "
            "take the 16-bit checkpoint"
        )


def _bnb(place: str, expected: Expected, tensors: Mapping[str, Tensor], quantised: Quantised) -> list[str]:
    """The tensors that hold one weight."""
    parameter = expected.parts[0].parameter
    if not parameter.linear:
        check_float(place, expected, tensors)
        return [expected.name]
    wanted = quantised.tensors(expected.name, parameter)
    for name, (dtype, count) in wanted.items():
        found = tensors.get(name)
        if found is None or found.dtype != dtype or count not in (None, found.bytes):
            held = "is missing" if found is None else f"is {found.bytes:,} bytes of {found.dtype}"
            needed = f"{count:,} bytes of {dtype}" if count else dtype
            raise CheckpointError(f"{place}: tensor {name} {held}; {quantised.format} has {needed} there")
    return list(wanted)


def _fp8(place: str, expected: Expected, tensors: Mapping[str, Tensor]) -> list[str]:
    found = tensors.get(expected.name)
    if found is None or found.dtype != FP8:
        check_float(place, expected, tensors)
    elif found.shape != expected.shape:
        raise CheckpointError(
            f"{place}: tensor {expected.name} has shape {found.shape}, config.json says {expected.shape}"
        )
    base = expected.name.removesuffix(".weight")
    return [expected.name, *(f"{stem}{suffix}" for stem in (expected.name, base) for suffix in SCALE_SUFFIXES)]
