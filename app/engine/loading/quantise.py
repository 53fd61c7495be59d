"""Replaces a model's Linear modules by quantised ones, and fills them a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

from app.engine.loading.checkpoint import CheckpointFiles, StoredRows
from app.engine.loading.placement import DeviceMap
from app.engine.loading.weights import RowBlock


class Quantiser(Protocol):
    """Quantises the weight of a Linear module."""

    def module(self, name: str, linear: torch.nn.Linear) -> torch.nn.Module:
        """An empty module in place of `linear`. Raises BadCheckpoint for shapes that its kernels can't multiply."""

    def fill(self, model: Any, rows: StoredRows, blocks: Iterator[RowBlock]) -> None:
        """Sets the parameter of `rows` from its blocks."""

    def finish(self) -> None:
        """Waits until each weight is in its place."""


def quantiser_for(
    precision: str, model: Any, checkpoint: CheckpointFiles, devices: DeviceMap, dtype: torch.dtype
) -> QuantiserByDevice:
    """Replaces the model's Linear modules, and returns what fills them.

    Raises:
        BadCheckpoint: a weight's shape cannot be quantised this way.
    """
    quantisers = {device: _quantiser(precision, device, dtype) for device in devices.used}
    swap_linear(model, checkpoint, devices, quantisers)
    return QuantiserByDevice(devices, quantisers)


def swap_linear(
    model: Any, checkpoint: CheckpointFiles, devices: DeviceMap, quantisers: Mapping[torch.device, Quantiser]
) -> None:
    """Replaces Linear modules by the empty ones of their device's quantiser. Raises BadCheckpoint."""
    for tensor in checkpoint.tensors:
        if tensor.parameter.linear:
            name = tensor.parameter.name
            module_name = name.removesuffix(".weight")
            linear = model.get_submodule(module_name)
            model.set_submodule(module_name, quantisers[devices.of(name)].module(name, linear))


class QuantiserByDevice:
    """Quantises each weight in the form of its device."""

    def __init__(self, devices: DeviceMap, quantisers: Mapping[torch.device, Quantiser]) -> None:
        self._devices, self._quantisers = devices, quantisers

    def fill(self, model: Any, rows: StoredRows, blocks: Iterator[RowBlock]) -> None:
        """As a `Quantiser`."""
        self._quantisers[self._devices.of(rows.parameter.name)].fill(model, rows, blocks)

    def finish(self) -> None:
        """As a `Quantiser`."""
        for quantiser in self._quantisers.values():
            quantiser.finish()


def _quantiser(precision: str, device: torch.device, dtype: torch.dtype) -> Quantiser:
    # bitsandbytes takes a second to import and 60 MiB, and is not needed on the CPU.
    if device.type == "cpu":
        from app.engine.loading.cpu_quantisers import CpuInt4, CpuInt8

        return CpuInt8() if precision == "int8" else CpuInt4()
    from app.engine.loading.bnb_quantisers import Int8, Nf4

    return Int8(device) if precision == "int8" else Nf4(device, dtype)
