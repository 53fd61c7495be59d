"""Which device each part of the model lies on, and how a forward pass gets from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from app.contract.config import EngineConfig
from app.engine.errors import EngineError

EMBEDDING, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"


@dataclass(frozen=True)
class Placement:
    """The device of the embedding, of each layer, and of final norm and head."""

    embedding: torch.device
    layers: tuple[torch.device, ...]
    head: torch.device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Each device once, in the order of a forward pass."""
        return tuple(dict.fromkeys((self.embedding, *self.layers, self.head)))

    def of(self, name: str) -> torch.device:
        """The device of a parameter, by its name in the native class."""
        if name.startswith("model.layers."):
            return self.layers[int(name.split(".")[2])]
        return self.embedding if name.startswith(EMBEDDING) else self.head


def placement_of(config: EngineConfig, layers: int) -> Placement:
    """The device map as devices. Raises EngineError where it does not name each module once."""
    if config.device_map.keys() == {""}:
        device = torch.device(config.device_map[""])
        return Placement(device, (device,) * layers, device)
    names = [f"model.layers.{index}" for index in range(layers)]
    wanted = {EMBEDDING, *names, NORM, HEAD}
    if wrong := sorted(wanted ^ config.device_map.keys()):
        raise EngineError(f"device_map: {wrong[0]} is {'missing' if wrong[0] in wanted else 'no module of this model'}")
    devices: Mapping[str, torch.device] = {name: torch.device(device) for name, device in config.device_map.items()}
    if devices[NORM] != devices[HEAD]:
        raise EngineError(f"device_map: {HEAD} is on {devices[HEAD]}, should be on {devices[NORM]} as {NORM}")
    return Placement(devices[EMBEDDING], tuple(devices[name] for name in names), devices[HEAD])


def connect(model: Any, place: Placement) -> None:
    """Moves hidden states where the device changes, and what all layers share once to each device.

    A model on one device gets no hooks and is as fast as before.
    """
    if len(place.devices) == 1:
        return
    carriers = {device: _Carrier(device) for device in place.devices}
    before = place.embedding
    for layer, device in zip(model.model.layers, place.layers, strict=True):
        # transformers hands every layer the mask and the position embeddings of the first device.
        if device != place.embedding or device != before:
            layer.register_forward_pre_hook(carriers[device], with_kwargs=True)
        before = device
    if place.head != before:
        model.model.norm.register_forward_pre_hook(carriers[place.head], with_kwargs=True)

    def forget(*_: object) -> None:
        for carrier in carriers.values():
            carrier.forget()

    model.model.register_forward_hook(forget)


class _Carrier:
    """A forward pre-hook that brings a module's inputs to its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shared: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(
        self, _module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hidden states come by place; all that comes by name is the same for every layer of a pass."""
        moved = tuple(value.to(self._device) if isinstance(value, torch.Tensor) else value for value in inputs)
        return moved, {name: self._keep(value) for name, value in named.items()}

    def forget(self) -> None:
        """Lets go of the pass's tensors."""
        self._shared.clear()

    def _keep(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._keep(item) for item in value)
        if not isinstance(value, torch.Tensor) or value.device == self._device:
            return value
        if id(value) not in self._shared:
            # The original is kept beside its copy, so that its id stays its own.
            self._shared[id(value)] = value, value.to(self._device)
        return self._shared[id(value)][1]
