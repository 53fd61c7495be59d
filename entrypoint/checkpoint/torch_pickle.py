"""Reads the pickle inside a `.bin` file as data: tensors by name. Nothing in it can run.

It knows the instructions of torch's weights-only reader (torch/_weights_only_unpickler.py). Values are plain Python
numbers, strings, tuples, lists and dictionaries, and the few classes of `torch_tensors`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from entrypoint.checkpoint.torch_tensors import (
    DAMAGED,
    FUNCTIONS,
    Global,
    Table,
    TensorView,
    TorchPickleError,
    storage_of,
)

MOST_INSTRUCTIONS = 4_000_000
"""About forty per tensor are usual."""


def read_views(pickled: bytes) -> dict[str, TensorView]:
    """The named tensors of a state dict. Raises TorchPickleError."""
    value = _Unpickler().read(pickled)
    if not isinstance(value, Table):
        raise TorchPickleError("does not contain a dictionary of tensors")
    for name, view in value.items():
        if not isinstance(view, TensorView):
            raise TorchPickleError(f"contains {str(name)[:80]!r}, which is not a tensor")
    return dict(value)


class _Unpickler:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, pickled: bytes) -> Any:
        """The value that the pickle describes."""
        try:
            for count, (instruction, argument, _) in enumerate(pickletools.genops(pickled)):
                if instruction.name == "STOP":
                    return self._stack[-1]
                if count > MOST_INSTRUCTIONS:
                    raise TorchPickleError("its data.pkl has more instructions than any checkpoint")
                self._step(instruction.name, argument)
        except TorchPickleError:
            raise
        except (ValueError, LookupError, TypeError) as error:
            raise TorchPickleError(DAMAGED) from error
        raise TorchPickleError("its data.pkl has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        else:
            raise TorchPickleError(f"its data.pkl has the instruction {name}, which is not allowed in a weights file")

    def _find(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Global(f"{module}.{name}"))

    def _put(self, argument: int) -> None:
        self._memo[argument] = self._stack[-1]

    def _get(self, argument: int) -> None:
        self._stack.append(self._memo[argument])

    def _mark(self, _argument: None) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _tuple(self, _argument: None) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) < count:
            raise TorchPickleError(DAMAGED)
        del self._stack[-count:]
        self._stack.append(items)

    def _append(self, items: list[Any]) -> None:
        values = self._stack[-1]
        if type(values) is not list:
            raise TorchPickleError(DAMAGED)
        values.extend(items)

    def _set(self, items: list[Any]) -> None:
        table = self._stack[-1]
        if not isinstance(table, Table):
            raise TorchPickleError(DAMAGED)
        table.add(zip(items[::2], items[1::2], strict=True))

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _reduce(self, _argument: None) -> None:
        function, arguments = self._pop(2)
        if not isinstance(function, Global) or function.name not in FUNCTIONS or type(arguments) is not tuple:
            name = function.name if isinstance(function, Global) else type(function).__name__
            raise TorchPickleError(f"calls {name[:80]}, which is not allowed in a weights file")
        self._stack.append(FUNCTIONS[function.name](*arguments))

    def _build(self, _argument: None) -> None:
        self._pop(1)
        if not isinstance(self._stack[-1], Table):
            raise TorchPickleError("sets attributes of something that is not a dictionary")

    def _storage(self, _argument: None) -> None:
        self._stack.append(storage_of(self._stack.pop()))


_PLAIN = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWFALSE": lambda: False, "NEWTRUE": lambda: True},
    **{"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": Table},
}
_HANDLERS: dict[str, Callable[[_Unpickler, Any], object]] = {
    "PROTO": lambda _reader, _argument: None,
    "GLOBAL": _Unpickler._find,
    **{name: _Unpickler._put for name in ("BINPUT", "LONG_BINPUT")},
    **{name: _Unpickler._get for name in ("BINGET", "LONG_BINGET")},
    "MARK": _Unpickler._mark,
    "TUPLE": _Unpickler._tuple,
    "TUPLE1": lambda reader, _argument: reader._tuple_of(1),
    "TUPLE2": lambda reader, _argument: reader._tuple_of(2),
    "TUPLE3": lambda reader, _argument: reader._tuple_of(3),
    "APPEND": lambda reader, _argument: reader._append(reader._pop(1)),
    "APPENDS": lambda reader, _argument: reader._append(reader._since_mark()),
    "SETITEM": lambda reader, _argument: reader._set(reader._pop(2)),
    "SETITEMS": lambda reader, _argument: reader._set(reader._since_mark()),
    "REDUCE": _Unpickler._reduce,
    "BUILD": _Unpickler._build,
    "BINPERSID": _Unpickler._storage,
}
