"""What the pickle of a `.bin` file may contain: storages, tensors in them, and dictionaries of tensors.

The functions take the place of torch's own (torch/_utils.py): they check and count, and load no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from entrypoint.checkpoint.safetensors_header import DTYPE_BYTES, LARGEST_SIZE, MOST_DIMENSIONS

DAMAGED = "its data.pkl is damaged"
STORAGE_DTYPES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "BFloat16Storage": "BF16", "HalfStorage": "F16"},
    **{"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8"},
    "BoolStorage": "BOOL",
}
"""Dtypes, by their names in safetensors, of torch's storage classes."""
TORCH_DTYPES = {
    **{"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"},
    **{"uint16": "U16", "uint32": "U32", "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
    **{"float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"},
}
UNTYPED = "torch.storage.UntypedStorage"


class TorchPickleError(ValueError):
    """The pickle is not a dictionary of tensors; the text says why."""


@dataclass(frozen=True)
class TensorStorage:
    """The bytes of one key in the zip; `dtype` is None if only its tensors have one."""

    key: str
    dtype: str | None
    bytes: int


@dataclass(frozen=True)
class TensorView:
    """A tensor: its dtype and shape, and its position in a storage."""

    storage: TensorStorage
    dtype: str
    shape: tuple[int, ...]
    elements: int
    end: int
    """Index in the storage, in elements, after its last one."""


@dataclass(frozen=True)
class Global:
    """A global name in the pickle; it is never imported."""

    name: str


class Table(dict[str, Any]):
    """A dictionary with strings as keys; attributes that the pickle sets on it (`_metadata`) are dropped."""

    def add(self, items: Iterable[Any]) -> None:
        """Adds pairs of key and value. Only strings are hashed: hashing a deep tuple would crash the process."""
        for name, value in items:
            if type(name) is not str:
                raise TorchPickleError("contains a dictionary whose keys are not strings")
            self[name] = value


def storage_of(identity: Any) -> TensorStorage:
    """The storage of a persistent id: kind, class, key, location and number of elements."""
    kind, storage, key, _location, count = identity
    if kind != "storage" or not isinstance(storage, Global) or not isinstance(key, str) or not _is_size(count):
        raise TorchPickleError(DAMAGED)
    module, _, name = storage.name.rpartition(".")
    if storage.name == UNTYPED:
        return TensorStorage(key, None, count)
    if module == "torch" and name in STORAGE_DTYPES:
        return TensorStorage(key, STORAGE_DTYPES[name], count * DTYPE_BYTES[STORAGE_DTYPES[name]])
    raise TorchPickleError(f"contains an unknown storage, {storage.name[:80]}")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_SIZE


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any, dtype: str | None = None) -> TensorView:
    if not isinstance(storage, TensorStorage) or type(shape) is not tuple or type(stride) is not tuple:
        raise TorchPickleError(DAMAGED)
    sizes = all(_is_size(value) for value in (offset, *shape[:MOST_DIMENSIONS], *stride[:MOST_DIMENSIONS]))
    if not sizes or len(shape) > MOST_DIMENSIONS or len(shape) != len(stride):
        raise TorchPickleError("contains a tensor of invalid size")
    dtype = dtype or storage.dtype
    if dtype is None:
        raise TorchPickleError("contains a tensor without a dtype")
    elements, last = 1, offset
    for size, step in zip(shape, stride, strict=True):
        elements *= size
        last += (size - 1) * step
    return TensorView(storage, dtype, shape, elements, last + 1 if elements else 0)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any
) -> TensorView:
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if name not in TORCH_DTYPES:
        raise TorchPickleError(f"contains a tensor of unknown dtype {name[:40] or '?'}")
    return _tensor(storage, offset, shape, stride, dtype=TORCH_DTYPES[name])


def _table(items: Any = ()) -> Table:
    table = Table()
    table.add(items)
    return table


def _same(value: Any, *_rest: Any) -> Any:
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "torch.Size": _same,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
}
