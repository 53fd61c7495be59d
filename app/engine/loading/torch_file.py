"""`.bin` files, read as safetensors are: first a table of names, then rows on request."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from app.engine.errors import BadCheckpoint

DTYPE_NAMES = {
    **{torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"},
    **{torch.uint8: "U8", torch.int8: "I8"},
}
"""safetensors' names of torch's dtypes; others keep torch's name."""


class TorchFile:
    """The part of safetensors' `safe_open` that the loader uses. The tensors are views of the mapped file.

    Nothing in the file is executed (`weights_only`), and no weight is read before its rows are (`mmap`).

    Raises:
        BadCheckpoint: the file is damaged, holds more than tensors, or is older than torch 1.6.
    """

    def __init__(self, path: Path) -> None:
        try:
            table = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # torch raises errors of any kind here, and advises to trust the file
            raise BadCheckpoint(
                f"{path} cannot be read: it is damaged, older than torch 1.6, or holds more than tensors; "
                "take the safetensors files"
            ) from error
        if not isinstance(table, dict) or not all(isinstance(value, torch.Tensor) for value in table.values()):
            raise BadCheckpoint(f"{path} holds more than a table of tensors; take the safetensors files")
        self._tensors: dict[str, torch.Tensor] = dict(table)

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._tensors.clear()

    def offset_keys(self) -> list[str]:
        """The names, in the file's order."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        """A whole tensor."""
        return self._tensors[name]

    def get_slice(self, name: str) -> TorchSlice:
        """A tensor whose rows can be read one block at a time."""
        return TorchSlice(self._tensors[name])


class TorchSlice:
    """A tensor in a mapped file."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        """The sizes of its dimensions."""
        return list(self._tensor.shape)

    def get_dtype(self) -> str:
        """safetensors' name, if it has one that can be loaded."""
        return DTYPE_NAMES.get(self._tensor.dtype, str(self._tensor.dtype))

    def __getitem__(self, rows: Any) -> torch.Tensor:
        return self._tensor[rows].detach()
