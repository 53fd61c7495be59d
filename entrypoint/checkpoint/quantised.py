"""Checkpoints with quantised weights: checks that the files contain what config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.contract.plan import Precision
from app.layouts.layout import Layout
from app.layouts.quantisation import SCALE_SUFFIXES, Quantised
from app.layouts.shape import Shape, StoredTensor
from app.layouts.skeleton import stored_tensors
from entrypoint.checkpoint.safe_open import CheckpointError
from entrypoint.checkpoint.safetensors_header import HeaderTensor
from entrypoint.units import size

FLOAT_DTYPES = ("BF16", "F16", "F32")
FP8_DTYPE = "F8_E4M3"
PRECISION_OF_KIND: Mapping[str, Precision] = {"nf4": "int4", "int8": "int8", "fp8": "fp8"}


@dataclass(frozen=True)
class StoredFormat:
    """How quantised weights are stored; the plan has this one precision only."""

    format: str
    """Its name in messages."""
    precision: Precision
    double_quant: bool
    bytes: int
    """Size of the tensors that the engine loads."""


def check_stored(
    path: str, layout: Layout, shape: Shape, tensors: Mapping[str, HeaderTensor], quantised: Quantised
) -> StoredFormat:
    """Compares headers with what the format has for each tensor of the layout. Messages name `path`.

    Raises:
        CheckpointError: the engine can't read the format, or a tensor is missing or wrong.
    """
    loaded = {name: tensor for name, tensor in tensors.items() if not layout.ignores(name, shape)}
    count = sum(tensor.bytes for tensor in loaded.values())
    if quantised.kind == "other" or layout.names:
        raise CheckpointError(
            f"{path} is stored as {quantised.format} ({size(count)}), which this engine can't read for "
            f"{layout.model_type}; use the 16-bit checkpoint, which Berth quantises to int8 or int4 when it loads it"
        )
    expected: set[str] = set()
    for tensor in stored_tensors(layout, shape):
        names = _fp8(path, tensor, loaded) if quantised.kind == "fp8" else _bnb(path, tensor, loaded, quantised)
        expected.update(names)
    unknown = next((name for name in loaded if name not in expected), None)
    if unknown is not None:
        raise CheckpointError(
            f"{path}: tensor {unknown[:80]!r} is not part of a {layout.model_type} model stored as {quantised.format}"
        )
    return StoredFormat(quantised.format, PRECISION_OF_KIND[quantised.kind], quantised.double, count)


def check_float(path: str, expected: StoredTensor, tensors: Mapping[str, HeaderTensor]) -> None:
    """Raises CheckpointError if a tensor is missing, has another shape, or is not stored in one of FLOAT_DTYPES."""
    tensor, name = tensors.get(expected.name), expected.name
    if tensor is None:
        raise CheckpointError(f"{path}: tensor {name} is missing; use a complete checkpoint")
    if tensor.shape != expected.shape:
        raise CheckpointError(f"{path}: tensor {name} has shape {tensor.shape}, config.json says {expected.shape}")
    if tensor.dtype not in FLOAT_DTYPES:
        raise CheckpointError(
            f"{path}: tensor {name} is stored as {tensor.dtype}, which is not one of {', '.join(FLOAT_DTYPES)}; "
            "use the 16-bit checkpoint"
        )


def _bnb(path: str, expected: StoredTensor, tensors: Mapping[str, HeaderTensor], quantised: Quantised) -> list[str]:
    """Names of the tensors that make up one weight. Raises CheckpointError if one is missing or wrong."""
    parameter = expected.parts[0].parameter
    if not parameter.linear:
        check_float(path, expected, tensors)
        return [expected.name]
    parts = quantised.tensors(expected.name, parameter)
    for name, (dtype, count) in parts.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != dtype or count not in (None, tensor.bytes):
            fault = "is missing" if tensor is None else f"is {tensor.bytes:,} bytes of {tensor.dtype}"
            needed = f"{count:,} bytes of {dtype}" if count else dtype
            raise CheckpointError(f"{path}: tensor {name} {fault}; {quantised.format} needs {needed}")
    return list(parts)


def _fp8(path: str, expected: StoredTensor, tensors: Mapping[str, HeaderTensor]) -> list[str]:
    tensor = tensors.get(expected.name)
    if tensor is None or tensor.dtype != FP8_DTYPE:
        check_float(path, expected, tensors)
    elif tensor.shape != expected.shape:
        raise CheckpointError(
            f"{path}: tensor {expected.name} has shape {tensor.shape}, config.json says {expected.shape}"
        )
    base = expected.name.removesuffix(".weight")
    return [expected.name, *(f"{stem}{suffix}" for stem in (expected.name, base) for suffix in SCALE_SUFFIXES)]
