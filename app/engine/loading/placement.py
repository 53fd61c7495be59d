"""The device of each part of the model, and how a forward pass moves from one device to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from app.contract.config import EngineConfig
from app.engine.errors import EngineError

EMBEDDING, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"


@dataclass(frozen=True)
class DeviceMap:
    """The device of the embedding, of each layer, and of final norm and head."""

    embedding: torch.device
    layers: tuple[torch.device, ...]
    head: torch.device

    @property
    def used(self) -> tuple[torch.device, ...]:
        """Each device once, in the order of a forward pass."""
        return tuple(dict.fromkeys((self.embedding, *self.layers, self.head)))

    def of(self, name: str) -> torch.device:
        """The device of a parameter, by its name in the native class."""
        if name.startswith("model.layers."):
            return self.layers[int(name.split(".")[2])]
        return self.embedding if name.startswith(EMBEDDING) else self.head


def device_map_of(config: EngineConfig, layers: int) -> DeviceMap:
    """The config's device map. Raises EngineError if it does not name each module exactly once."""
    if config.device_map.keys() == {""}:
        device = torch.device(config.device_map[""])
        return DeviceMap(device, (device,) * layers, device)
    names = [f"model.layers.{index}" for index in range(layers)]
    expected = {EMBEDDING, *names, NORM, HEAD}
    if wrong := sorted(expected ^ config.device_map.keys()):
        reason = "missing" if wrong[0] in expected else "not a module of this model"
        raise EngineError(f"device_map: {wrong[0]} is {reason}")
    devices: Mapping[str, torch.device] = {name: torch.device(device) for name, device in config.device_map.items()}
    if devices[NORM] != devices[HEAD]:
        raise EngineError(f"device_map: {HEAD} is on {devices[HEAD]}, should be on {devices[NORM]} as {NORM}")
    return DeviceMap(devices[EMBEDDING], tuple(devices[name] for name in names), devices[HEAD])


def move_between_devices(model: Any, devices: DeviceMap) -> None:
    """Adds hooks that move hidden states where the device changes, and what all layers share once to each device.

    A model on one device gets no hooks and loses no speed.
    """
    if len(devices.used) == 1:
        return
    movers = {device: _DeviceMover(device) for device in devices.used}
    before = devices.embedding
    for layer, device in zip(model.model.layers, devices.layers, strict=True):
        # transformers hands every layer the mask and the position embeddings of the first device.
        if device != devices.embedding or device != before:
            layer.register_forward_pre_hook(movers[device], with_kwargs=True)
        before = device
    if devices.head != before:
        model.model.norm.register_forward_pre_hook(movers[devices.head], with_kwargs=True)

    def clear(*_: object) -> None:
        for mover in movers.values():
            mover.clear()

    model.model.register_forward_hook(clear)


class _DeviceMover:
    """A forward pre-hook that moves a module's inputs to its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shared: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(
        self, _module: torch.nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hidden states are positional; keyword arguments are the same for every layer of a pass."""
        moved = tuple(value.to(self._device) if isinstance(value, torch.Tensor) else value for value in inputs)
        return moved, {name: self._move_once(value) for name, value in keywords.items()}

    def clear(self) -> None:
        """Drops the pass's tensors."""
        self._shared.clear()

    def _move_once(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._move_once(item) for item in value)
        if not isinstance(value, torch.Tensor) or value.device == self._device:
            return value
        if id(value) not in self._shared:
            # The original is kept too, so that no other tensor gets its id.
            self._shared[id(value)] = value, value.to(self._device)
        return self._shared[id(value)][1]
