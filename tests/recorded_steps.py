"""What a CUDA graph does, on the CPU: the operations of a run are recorded, and repeated over the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

LOOKS = ("item", "is_nonzero", "resolve_conj", "_local_scalar_dense", "nonzero", "equal", "_unique2")
"""Operations that wait for values, `tolist` by its first: CUDA can't record them."""


class CantRecord(RuntimeError):
    """As CUDA says it."""


class Recording(TorchDispatchMode):
    """Records each operation with its input and output tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if any(func.__name__.startswith(name) for name in LOOKS):
            raise CantRecord(f"operation not permitted when stream is capturing: {func}")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def repeat(self) -> None:
        """Runs them again over the same memory, with the Python values of the recording."""
        for func, args, kwargs, before in self.operations:
            now = func(*args, **kwargs)
            tree_map(lambda old, new: _put(old, new), before, now)


def _put(old: Any, new: Any) -> None:
    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
        old.copy_(new)


def record(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Records a run as `app.engine.model.cuda_graphs.CudaCapture` does."""
    with Recording() as recording:
        result = run()

    def repeat() -> torch.Tensor:
        recording.repeat()
        return result

    return repeat
