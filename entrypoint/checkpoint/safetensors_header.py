"""The header of a safetensors file: names, dtypes and shapes of its tensors, and that they can be what they say.

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

from entrypoint.checkpoint.safe_open import CheckpointError, opened

__all__ = ["CheckpointError", "Tensor", "header_length", "parse_header", "read_header"]
HEADER_LIMIT_BYTES = 10_000_000
"""The safetensors library allows ten times as much, which takes a gigabyte to parse; GLM-4.5's 44,000 tensors in a
single file would need two thirds of this."""
LENGTH_BYTES = 8
LARGEST_SIZE = 1 << 48
MOST_DIMENSIONS = 8
DTYPE_BYTES = {
    **{"F64": 8, "F32": 4, "BF16": 2, "F16": 2},
    **{"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1},
    **{"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1},
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one local file, by name. Raises CheckpointError."""
    with opened(path, "copy it again") as (file, size):
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


def parse_header(name: str, header: bytes, size: int) -> dict[str, Tensor]:
    """The tensors that the JSON of a file of `size` bytes names. Raises CheckpointError naming the file."""
    try:
        entries = json.loads(header, object_pairs_hook=_once)
    except _Twice as error:
        raise CheckpointError(f"{name}: its header names {error} twice; copy the file again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: its header is not JSON; copy the file again") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{name}: its header is not a JSON object; copy the file again")
    data_bytes = size - LENGTH_BYTES - len(header)
    tensors, spans = {}, []
    for tensor, (span, found) in _entries(name, entries):
        tensors[tensor] = found
        spans.append(span)
    _check_spans(name, spans, data_bytes)
    return tensors


class _Twice(Exception):
    """A key that stands in a JSON object more than once."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(repr(name[:80]))
            seen.add(name)
    return found


def _entries(file: str, header: dict[str, Any]) -> Iterator[tuple[str, tuple[tuple[int, int], Tensor]]]:
    """Name, place in the data, and the tensor."""
    short = Path(file).name
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{file}: tensor {name[:80]!r} has a header entry that can't be used; copy the file again"
            ) from error
        if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
            raise CheckpointError(
                f"{file}: tensor {name[:80]!r} has the dtype {str(dtype)[:40]!r}, which is not known here; "
                "take a 16-bit checkpoint, or copy the file again if it is one"
            )
        sizes = all(type(n) is int and 0 <= n < LARGEST_SIZE for n in (begin, end, *shape[:MOST_DIMENSIONS]))
        if not sizes or len(shape) > MOST_DIMENSIONS or end - begin != DTYPE_BYTES[dtype] * math.prod(shape):
            raise CheckpointError(
                f"{file}: tensor {name[:80]!r} has a shape and offsets that don't agree; copy the file again"
            )
        yield name, ((begin, end), Tensor(short, dtype, shape, end - begin))


def _check_spans(file: str, spans: list[tuple[int, int]], data_bytes: int) -> None:
    """Tensors lie one behind the other from the first byte of data to the last, as the format has it."""
    spans.sort()
    needed = max((end for _, end in spans), default=0)
    if needed > data_bytes:
        raise CheckpointError(
            f"{file}: truncated, {needed:,} bytes of data are named and {data_bytes:,} are there; copy the file again"
        )
    ends = itertools.pairwise([(0, 0), *spans, (data_bytes, data_bytes)])
    for (_, end), (following, _) in ends:
        if end > following:
            raise CheckpointError(f"{file}: tensors overlap in its header; copy the file again")
        if end < following:
            raise CheckpointError(
                f"{file}: {following - end:,} bytes of data belong to no tensor of its header; copy the file again"
            )
