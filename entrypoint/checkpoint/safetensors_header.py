"""The header of a safetensors file: names, dtypes and shapes of its tensors, checked against the size of the file.

Format: 8 bytes of little-endian length, that many bytes of JSON, then the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.checkpoint.safe_open import CheckpointError, open_regular

__all__ = ["CheckpointError", "HeaderTensor", "header_length", "parse_header", "read_header"]
HEADER_LIMIT_BYTES = 10_000_000
"""The safetensors library allows ten times as much, which takes a gigabyte of memory to parse. GLM-4.5's 44,000
tensors in a single file would need two thirds of this."""
LENGTH_BYTES = 8
LARGEST_SIZE = 1 << 48
"""Of a dimension, in elements, and of an offset, in bytes."""
MOST_DIMENSIONS = 8
DTYPE_BYTES = {
    **{"F64": 8, "F32": 4, "BF16": 2, "F16": 2},
    **{"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1},
    **{"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1},
}


@dataclass(frozen=True, slots=True)
class HeaderTensor:
    """One entry of a header."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


def read_header(path: Path) -> dict[str, HeaderTensor]:
    """The tensors of one local file, by name. Raises CheckpointError."""
    with open_regular(path, "copy it again") as (file, size):
        length = header_length(str(path), file.read(LENGTH_BYTES), size)
        return parse_header(str(path), file.read(length), size)


def header_length(name: str, start: bytes, size: int) -> int:
    """Bytes of JSON that follow the first 8 of a file of `size` bytes. Raises CheckpointError naming the file."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or length > size - LENGTH_BYTES:
        raise CheckpointError(f"{name}: not a whole safetensors file ({size:,} bytes); copy it again")
    if length > HEADER_LIMIT_BYTES:
        raise CheckpointError(
            f"{name}: not a safetensors file: its header would be {length:,} bytes, "
            f"at most {HEADER_LIMIT_BYTES:,} are read; copy it again"
        )
    return length


def parse_header(name: str, header: bytes, size: int) -> dict[str, HeaderTensor]:
    """The tensors that the JSON of a file of `size` bytes names. Raises CheckpointError naming the file."""
    try:
        entries = json.loads(header, object_pairs_hook=_unique)
    except _DuplicateKey as error:
        raise CheckpointError(f"{name}: its header has {error} twice; copy the file again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: its header is not JSON; copy the file again") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{name}: its header is not a JSON object; copy the file again")
    data_bytes = size - LENGTH_BYTES - len(header)
    tensors, spans = {}, []
    for tensor_name, (span, tensor) in _entries(name, entries):
        tensors[tensor_name] = tensor
        spans.append(span)
    _check_spans(name, spans, data_bytes)
    return tensors


class _DuplicateKey(Exception):
    """A key occurs in a JSON object more than once."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _DuplicateKey(repr(name[:80]))
            names.add(name)
    return entries


def _entries(file: str, header: dict[str, Any]) -> Iterator[tuple[str, tuple[tuple[int, int], HeaderTensor]]]:
    """Name, first byte and end in the data, and the tensor. Raises CheckpointError."""
    short = Path(file).name
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{file}: tensor {name[:80]!r} has an invalid header entry; copy the file again"
            ) from error
        if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
            raise CheckpointError(
                f"{file}: tensor {name[:80]!r} has the unknown dtype {str(dtype)[:40]!r}; "
                "use a 16-bit checkpoint, or copy the file again if it is one"
            )
        sizes = all(type(n) is int and 0 <= n < LARGEST_SIZE for n in (begin, end, *shape[:MOST_DIMENSIONS]))
        if not sizes or len(shape) > MOST_DIMENSIONS or end - begin != DTYPE_BYTES[dtype] * math.prod(shape):
            raise CheckpointError(
                f"{file}: tensor {name[:80]!r} has a shape and offsets that don't agree; copy the file again"
            )
        yield name, ((begin, end), HeaderTensor(short, dtype, shape, end - begin))


def _check_spans(file: str, spans: list[tuple[int, int]], data_bytes: int) -> None:
    """The tensors fill the data without gaps or overlaps, as the format requires. Raises CheckpointError."""
    spans.sort()
    needed = max((end for _, end in spans), default=0)
    if needed > data_bytes:
        raise CheckpointError(
            f"{file}: truncated: it should have {needed:,} bytes of data and has {data_bytes:,}; copy the file again"
        )
    ends = itertools.pairwise([(0, 0), *spans, (data_bytes, data_bytes)])
    for (_, end), (following, _) in ends:
        if end > following:
            raise CheckpointError(f"{file}: tensors overlap in its header; copy the file again")
        if end < following:
            raise CheckpointError(
                f"{file}: {following - end:,} bytes of data belong to no tensor of its header; copy the file again"
            )
