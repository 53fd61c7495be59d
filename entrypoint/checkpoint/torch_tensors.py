"""What the pickle of a `.bin` file can describe: storages, tensors in them, and tables of these by name.

The functions stand for torch's own of the same meaning (torch/_utils.py); they check and count, and hold no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from entrypoint.checkpoint.safetensors_header import DTYPE_BYTES, LARGEST_SIZE, MOST_DIMENSIONS

DAMAGED = "its data.pkl is damaged"
STORAGES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "BFloat16Storage": "BF16", "HalfStorage": "F16"},
    **{"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8"},
    "BoolStorage": "BOOL",
}
"""Storage classes of `torch`, and safetensors' names of what they hold."""
DTYPES = {
    **{"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"},
    **{"uint16": "U16", "uint32": "U32", "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
    **{"float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"},
}
UNTYPED = "torch.storage.UntypedStorage"


class TorchPickleError(ValueError):
    """What is not a table of tensors; the text says why."""


@dataclass(frozen=True)
class Storage:
    """Bytes under a key in the zip; `dtype` is None where only its tensors know."""

    key: str
    dtype: str | None
    bytes: int


@dataclass(frozen=True)
class View:
    """A tensor: a place in a storage, in elements."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    elements: int
    end: int
    """The element behind the last that it reaches."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for; never imported."""

    name: str


class Table(dict[str, Any]):
    """A dictionary with texts as keys; what is set on it as attributes (`_metadata`) is dropped."""

    def add(self, items: Iterable[Any]) -> None:
        """Pairs of key and value. Hashing nothing but text: a deep enough tuple ends the process."""
        for name, value in items:
            if type(name) is not str:
                raise TorchPickleError("holds a table whose names are no text")
            self[name] = value


def storage_of(identity: Any) -> Storage:
    """What a persistent id stands for: kind, class, key, location and count of elements."""
    kind, storage, key, _location, count = identity
    if kind != "storage" or not isinstance(storage, Global) or not isinstance(key, str) or not _is_size(count):
        raise TorchPickleError(DAMAGED)
    module, _, name = storage.name.rpartition(".")
    if storage.name == UNTYPED:
        return Storage(key, None, count)
    if module == "torch" and name in STORAGES:
        return Storage(key, STORAGES[name], count * DTYPE_BYTES[STORAGES[name]])
    raise TorchPickleError(f"holds a {storage.name[:80]}, which is not known here")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_SIZE


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any, dtype: str | None = None) -> View:
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(stride) is not tuple:
        raise TorchPickleError(DAMAGED)
    sizes = all(_is_size(value) for value in (offset, *shape[:MOST_DIMENSIONS], *stride[:MOST_DIMENSIONS]))
    if not sizes or len(shape) > MOST_DIMENSIONS or len(shape) != len(stride):
        raise TorchPickleError("holds a tensor whose sizes can't be")
    dtype = dtype or storage.dtype
    if dtype is None:
        raise TorchPickleError("holds a tensor without a dtype")
    elements, last = 1, offset
    for size, step in zip(shape, stride, strict=True):
        elements *= size
        last += (size - 1) * step
    return View(storage, dtype, shape, elements, last + 1 if elements else 0)


def _typed_tensor(storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any) -> View:
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if name not in DTYPES:
        raise TorchPickleError(f"holds a tensor of dtype {name[:40] or '?'}, which is not known here")
    return _tensor(storage, offset, shape, stride, dtype=DTYPES[name])


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
