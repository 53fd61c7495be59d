"""A checkpoint's files: which tensors lie where, compared with what the layout says must be there."""

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
from app.layouts.shape import Parameter, Part, Shape
from app.layouts.shape import StoredTensor as Expected
from app.layouts.skeleton import stored_tensors

DTYPE_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
"""safetensors' names of the dtypes that weights are stored in."""
SIDE_BYTES = {"U8": 1, "I8": 1, "F32": 4}
KINDS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
"""Index and single file; where both kinds are there, safetensors are taken."""


@dataclass(frozen=True)
class StoredTensor:
    """Rows of a parameter that are to be loaded, and the rows of a file's tensor that they are."""

    file: Path
    name: str
    first_row: int
    part: Part
    stored_bytes: int

    @property
    def parameter(self) -> Parameter:
        """What they are part of."""
        return self.part.parameter


@dataclass(frozen=True)
class Beside:
    """One of the tensors that hold a weight which is stored quantised; `bytes` None is any number."""

    part: Part
    dtype: str
    bytes: int | None


@dataclass(frozen=True)
class Checkpoint:
    """What is to be loaded, in the order in which it lies in the files."""

    folder: Path
    layout: Layout
    shape: Shape
    tensors: tuple[StoredTensor, ...]
    native_config: dict[str, object] | None = None
    """Fields of the native class's config, where config.json has others."""
    quantised: Quantised | None = None
    """How the linear weights are stored, where they are no floats."""
    sides: Mapping[str, Path] = field(default_factory=dict)
    """Of such weights: the tensors beside them, and the files that these lie in."""

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(tensor.stored_bytes for tensor in self.tensors)


def checkpoint_folder(path: str) -> Path:
    """The folder that config.json names. Raises BadCheckpoint where it is not there."""
    folder = Path(path)
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is no folder")
    return folder


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads config.json and the files' headers, no weights.

    Raises:
        BadCheckpoint: a file is missing or damaged, or its tensors are not those that config.json asks for.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layout, shape, native = layout_of(config), shape_of(config), native_config(config)
        quantised = quantised_of(config)
    except (OSError, ValueError, AttributeError, LayoutError) as error:
        raise BadCheckpoint(f"{folder / 'config.json'}: {error}") from error
    wanted = {expected.name: expected for expected in stored_tensors(layout, shape)}
    beside = _beside(layout, wanted.values(), quantised) if quantised else {}
    tensors = tuple(t for file in weight_files(folder) for t in _tensors(file, layout, shape, wanted, beside))
    sides = {tensor.name: tensor.file for tensor in tensors if tensor.name not in wanted}
    tensors = tuple(tensor for tensor in tensors if tensor.name in wanted)
    missing = sorted((wanted.keys() | beside.keys()) - sides.keys() - {tensor.name for tensor in tensors})
    if missing:
        raise BadCheckpoint(f"the checkpoint lacks {len(missing)} tensors, {missing[0]} among them")
    return Checkpoint(folder, layout, shape, tensors, native, quantised, sides)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors or `.bin` files, in the order of their names. Raises BadCheckpoint where one is missing."""
    names = {KINDS[0][1]}
    for index, single in KINDS:
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
    """A weight file as a context manager; its tensors are views of the file's mapping. Raises BadCheckpoint.

    Who only wants a safetensors file's header says "np", and torch is not imported for it.
    """
    if path.suffix == ".bin":
        from app.engine.loading.torch_file import TorchFile

        return TorchFile(path)
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework=framework, device="cpu")
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(f"{path} is damaged or cut short: {error}") from error


def _beside(layout: Layout, wanted: Iterable[Expected], quantised: Quantised) -> dict[str, Beside]:
    """What holds the weights that are stored quantised. Raises BadCheckpoint for formats that can't be loaded."""
    if quantised.kind not in ("nf4", "int8") or layout.names:
        raise BadCheckpoint(
            f"stored as {quantised.format}, which can't be loaded for {layout.model_type}; take the 16-bit checkpoint"
        )
    found = {}
    for expected in wanted:
        part = expected.parts[0]
        if part.parameter.linear:
            for name, (dtype, count) in quantised.tensors(expected.name, part.parameter).items():
                found[name] = Beside(part, dtype, count)
    return found


def _tensors(
    file: Path, layout: Layout, shape: Shape, wanted: dict[str, Expected], beside: Mapping[str, Beside]
) -> Iterator[StoredTensor]:
    with open_file(file, "np") as opened:
        for name in opened.offset_keys():
            if layout.ignores(name, shape):
                continue
            if name in beside:
                yield _quantised(file, name, beside[name], opened.get_slice(name))
                continue
            if name not in wanted:
                raise BadCheckpoint(f"{file.name} holds {name}, which {layout.model_type} does not have")
            yield from _parts(file, wanted[name], opened.get_slice(name))


def _quantised(file: Path, name: str, expected: Beside, stored: Any) -> StoredTensor:
    count, dtype = math.prod(stored.get_shape()), stored.get_dtype()
    size = count * SIDE_BYTES.get(dtype, 0)
    if dtype != expected.dtype or expected.bytes not in (None, size):
        raise BadCheckpoint(f"{name} is {size} bytes of {dtype}; {expected.bytes} of {expected.dtype} belong there")
    return StoredTensor(file, name, 0, expected.part, size)


def _parts(file: Path, expected: Expected, stored: Any) -> Iterator[StoredTensor]:
    shape, dtype = tuple(stored.get_shape()), stored.get_dtype()
    if shape != expected.shape:
        text = f"{expected.name} has shape {list(shape)} in {file.name}, config.json asks for {list(expected.shape)}"
        raise BadCheckpoint(text)
    if dtype not in DTYPE_BYTES:
        raise BadCheckpoint(f"{expected.name} is stored as {dtype}; supported: {', '.join(DTYPE_BYTES)}")
    row = 0
    for part in expected.parts:
        yield StoredTensor(file, expected.name, row, part, part.elements * DTYPE_BYTES[dtype])
        row += part.rows
