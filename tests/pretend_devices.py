"""Pretended GPUs: tensors in the CPU's memory that report another device, and refuse to be mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class Mixed(AssertionError):
    """An operation over tensors of several devices, which CUDA would refuse."""


class PretendDevices(TorchFunctionMode):
    """While it is active, what is made on or moved to a device is taken for lying there, views of it too."""

    def __init__(self) -> None:
        super().__init__()
        # The storages are kept, so that no address is used twice.
        self._places: dict[int, tuple[torch.device, Any]] = {}
        self.moves: list[tuple[torch.device, torch.device, tuple[int, ...]]] = []
        """From, to and shape of what `to` really moved."""

    def place(self, tensor: torch.Tensor) -> torch.device:
        """Where a tensor is taken to lie."""
        if tensor.is_meta:
            return torch.device("meta")
        return self._places.get(tensor.untyped_storage().data_ptr(), (CPU, None))[0]

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return self.place(args[0])
        if func is torch.Tensor.to:
            return self._to(*args, **named)
        wanted = named.pop("device", None)
        if wanted is not None and torch.device(wanted).type == "meta":
            return func(*args, device=wanted, **named)
        tensors = [tensor for tensor in _tensors((args, named)) if tensor.dim() and not tensor.is_meta]
        places = {self.place(tensor) for tensor in tensors}
        if len(places) > 1 and func is not torch.Tensor.copy_:
            raise Mixed(f"{getattr(func, '__name__', func)} over {sorted(map(str, places))}")
        if func is torch.histc:  # CUDA counts integers, the CPU only floats
            args = (args[0].float(), *args[1:])
        result = func(*args, **named)
        self._put(result, torch.device(wanted) if wanted is not None else next(iter(places), CPU))
        return result

    def _to(self, tensor: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        devices = [value for value in (*args, *named.values()) if isinstance(value, (torch.device, str))]
        dtypes = [value for value in (*args, *named.values()) if isinstance(value, torch.dtype)]
        source = self.place(tensor)
        target = torch.device(devices[0]) if devices else source
        result = tensor.to(dtypes[0]) if dtypes else tensor
        if target != source:
            self.moves.append((source, target, tuple(tensor.shape)))
        if target != source or named.get("copy"):
            result = result.clone()
        self._put(result, target)
        return result

    def _put(self, result: Any, place: torch.device) -> None:
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if not tensor.is_meta and storage.data_ptr() not in self._places:
                self._places[storage.data_ptr()] = place, storage


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
