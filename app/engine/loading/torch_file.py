"""`.bin` files, read as safetensors are: a table of names first, then rows as they are asked for."""

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
"""torch's dtypes by safetensors' names; others are told as torch calls them."""


class TorchFile:
    """The part of safetensors' `safe_open` that the loader uses. The tensors are views of the file's mapping.

    Nothing that a file says is run (`weights_only`), and no weight is read before its rows are (`mmap`).

    Raises:
        BadCheckpoint: it is damaged, holds more than tensors, or is older than torch 1.6.
    """

    def __init__(self, path: Path) -> None:
        try:
            stored = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # torch raises what it likes here, and advises to trust the file
            raise BadCheckpoint(
                f"{path} cannot be read: it is damaged, older than torch 1.6, or holds more than tensors; "
                "take the safetensors files"
            ) from error
        if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
            raise BadCheckpoint(f"{path} holds more than a table of tensors; take the safetensors files")
        self._tensors: dict[str, torch.Tensor] = dict(stored)

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
        """A tensor of which rows can be taken."""
        return TorchSlice(self._tensors[name])


class TorchSlice:
    """A tensor in a mapped file."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        """Its sizes."""
        return list(self._tensor.shape)

    def get_dtype(self) -> str:
        """safetensors' name where it has one of those that can be loaded."""
        return DTYPE_NAMES.get(self._tensor.dtype, str(self._tensor.dtype))

    def __getitem__(self, rows: Any) -> torch.Tensor:
        return self._tensor[rows].detach()
