"""A checkpoint's files: which file holds which tensor, compared with what the layout requires."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.engine.errors import BadCheckpoint
from app.layouts.config_fields import LayoutError
from app.layouts.layout import Layout
from app.layouts.quantisation import Quantised, quantised_of
from app.layouts.registry import layout_of, native_config, shape_of
from app.layouts.shape import Parameter, Part, Shape, StoredTensor
from app.layouts.skeleton import stored_tensors

WEIGHT_DTYPE_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
"""The dtypes that weights are stored in, by safetensors' names."""
SIDE_DTYPE_BYTES = {"U8": 1, "I8": 1, "F32": 4}
WEIGHT_FILES = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
"""Index and single file of each kind; safetensors come first."""


@dataclass(frozen=True)
class StoredRows:
    """Rows of a parameter that are to be loaded, and the rows of a file's tensor that hold them."""

    file: Path
    name: str
    first_row: int
    part: Part
    stored_bytes: int

    @property
    def parameter(self) -> Parameter:
        """The parameter that they are part of."""
        return self.part.parameter


@dataclass(frozen=True)
class SideTensor:
    """One of the tensors that hold a quantised weight: its dtype and size; `bytes` None is any size."""

    part: Part
    dtype: str
    bytes: int | None


@dataclass(frozen=True)
class CheckpointFiles:
    """What is to be loaded, in the order of the files."""

    folder: Path
    layout: Layout
    shape: Shape
    tensors: tuple[StoredRows, ...]
    native_config: dict[str, object] | None = None
    """Fields of the native class's config, if config.json has others."""
    quantised: Quantised | None = None
    """How the linear weights are stored, if they are quantised."""
    sides: Mapping[str, Path] = field(default_factory=dict)
    """The other tensors of quantised weights (scales, states), and the files that hold them."""

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(tensor.stored_bytes for tensor in self.tensors)


def checkpoint_folder(path: str) -> Path:
    """The folder that config.json names. Raises BadCheckpoint if it does not exist."""
    folder = Path(path)
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is not a folder")
    return folder


def open_checkpoint(folder: Path) -> CheckpointFiles:
    """Reads config.json and the files' headers, no weights.

    Raises:
        BadCheckpoint: a file is missing or damaged, or its tensors are not those that config.json requires.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layout, shape, native = layout_of(config), shape_of(config), native_config(config)
        quantised = quantised_of(config)
    except (OSError, ValueError, AttributeError, LayoutError) as error:
        raise BadCheckpoint(f"{folder / 'config.json'}: {error}") from error
    expected = {tensor.name: tensor for tensor in stored_tensors(layout, shape)}
    side_tensors = _side_tensors(layout, expected.values(), quantised) if quantised else {}
    rows = tuple(row for file in weight_files(folder) for row in _rows_of(file, layout, shape, expected, side_tensors))
    sides = {row.name: row.file for row in rows if row.name not in expected}
    rows = tuple(row for row in rows if row.name in expected)
    missing = sorted((expected.keys() | side_tensors.keys()) - sides.keys() - {row.name for row in rows})
    if missing:
        raise BadCheckpoint(f"{len(missing)} tensors are missing from the checkpoint, such as {missing[0]}")
    return CheckpointFiles(folder, layout, shape, rows, native, quantised, sides)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors or `.bin` files, sorted by name. Raises BadCheckpoint if one is missing."""
    names = {WEIGHT_FILES[0][1]}
    for index, single in WEIGHT_FILES:
        if (folder / index).is_file():
            names = _indexed(folder / index)
            break
        if (folder / single).is_file():
            names = {single}
            break
    files = tuple(folder / name for name in sorted(names))
    for file in files:
        if not file.is_file():
            raise BadCheckpoint(f"{file} is missing")
    return files


def _indexed(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{index} cannot be read: {error}") from error


def open_file(path: Path, framework: Literal["pt", "np"] = "pt") -> Any:
    """A weight file as a context manager; its tensors are views of the mapped file. Raises BadCheckpoint.

    With the framework "np" the header of a safetensors file is read without importing torch.
    """
    if path.suffix == ".bin":
        from app.engine.loading.torch_file import TorchFile

        return TorchFile(path)
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework=framework, device="cpu")
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(f"{path} is damaged or cut short: {error}") from error


def _side_tensors(layout: Layout, expected: Iterable[StoredTensor], quantised: Quantised) -> dict[str, SideTensor]:
    """The tensors that hold quantised weights. Raises BadCheckpoint for formats that can't be loaded."""
    if quantised.kind not in ("nf4", "int8") or layout.names:
        raise BadCheckpoint(
            f"stored as {quantised.format}, which can't be loaded for {layout.model_type}; take the 16-bit checkpoint"
        )
    sides = {}
    for tensor in expected:
        part = tensor.parts[0]
        if part.parameter.linear:
            for name, (dtype, count) in quantised.tensors(tensor.name, part.parameter).items():
                sides[name] = SideTensor(part, dtype, count)
    return sides


def _rows_of(
    file: Path, layout: Layout, shape: Shape, expected: dict[str, StoredTensor], sides: Mapping[str, SideTensor]
) -> Iterator[StoredRows]:
    with open_file(file, "np") as tensors:
        for name in tensors.offset_keys():
            if layout.ignores(name, shape):
                continue
            if name in sides:
                yield _quantised_rows(file, name, sides[name], tensors.get_slice(name))
                continue
            if name not in expected:
                raise BadCheckpoint(f"{file.name} holds {name}, which is not part of {layout.model_type}")
            yield from _float_rows(file, expected[name], tensors.get_slice(name))


def _quantised_rows(file: Path, name: str, expected: SideTensor, tensor: Any) -> StoredRows:
    count, dtype = math.prod(tensor.get_shape()), tensor.get_dtype()
    size = count * SIDE_DTYPE_BYTES.get(dtype, 0)
    if dtype != expected.dtype or expected.bytes not in (None, size):
        raise BadCheckpoint(f"{name} is {size} bytes of {dtype}; {expected.bytes} of {expected.dtype} are expected")
    return StoredRows(file, name, 0, expected.part, size)


def _float_rows(file: Path, expected: StoredTensor, tensor: Any) -> Iterator[StoredRows]:
    shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
    if shape != expected.shape:
        text = f"{expected.name} has shape {list(shape)} in {file.name}, config.json asks for {list(expected.shape)}"
        raise BadCheckpoint(text)
    if dtype not in WEIGHT_DTYPE_BYTES:
        raise BadCheckpoint(f"{expected.name} is stored as {dtype}; supported: {', '.join(WEIGHT_DTYPE_BYTES)}")
    row = 0
    for part in expected.parts:
        yield StoredRows(file, expected.name, row, part, part.elements * WEIGHT_DTYPE_BYTES[dtype])
        row += part.rows
