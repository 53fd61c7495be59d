"""The KV cache of all slots, allocated once; a slot holds one sequence's keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from app.engine.model.windows import BatchWindow, ChunkWindow, Window, Windows
from app.layouts.shape import Shape


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, each [slots, heads, max_len, elements a head] (`Shape.cache_sizes`)."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys: torch.Tensor = keys
        self.values: torch.Tensor = values
        self.window: Window = ChunkWindow(slot=0, start=0, end=0, rows=0, width=0)
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Does nothing: the cache is allocated already."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """transformers' cache interface: `write` and `visible_kv` for the window that was set."""
        self.write(self.window, key_states, value_states)
        return self.visible_kv(self.window)

    def write(self, window: Window, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Writes [rows, heads, new, elements] to the window's positions; padding is left out."""
        new = window.tokens
        if isinstance(window, ChunkWindow):
            slot = slice(window.slot, window.slot + 1)
            self.keys[slot, :, window.start : window.end] = key_states[:, :, :new]
            self.values[slot, :, window.start : window.end] = value_states[:, :, :new]
        else:
            self.keys[window.slots, :, window.positions] = key_states[:new, :, 0]
            self.values[window.slots, :, window.positions] = value_states[:new, :, 0]

    def visible_kv(self, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values that the window's tokens attend to, as views.

        For a chunk those of its slot, [1, heads, width, elements]; for a batch those of its slots' span, up to the
        longest row. Only those of rows that are `copied` are no views.
        """
        slots: slice | torch.Tensor
        if isinstance(window, ChunkWindow):
            slots = slice(window.slot, window.slot + 1)
        elif isinstance(window, BatchWindow):
            slots = window.span
        else:
            slots = window.slots if window.copied else slice(0, window.tokens)
        return self.keys[slots, :, : window.width], self.values[slots, :, : window.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys; unused, since windows have their own masks."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Unused, since positions are always passed."""
        return 0

    def get_max_length(self) -> int:
        """Tokens that fit into a slot."""
        return int(self.keys.shape[-2])

    def reset(self) -> None:
        """Old values stay; no mask shows them."""


class SlotCache(Cache):
    """All layers, in `dtype`, for `slots` sequences of up to `max_len` tokens.

    `devices` is one device for all layers, or the device of each.
    """

    def __init__(
        self, shape: Shape, slots: int, max_len: int, dtype: torch.dtype, devices: torch.device | Sequence[torch.device]
    ) -> None:
        self.slots, self.max_len = slots, max_len
        heads, key_dim, value_dim = shape.cache_sizes
        layer_devices = [devices] * shape.layers if isinstance(devices, torch.device) else devices

        def zeros(elements: int, device: torch.device) -> torch.Tensor:
            # torch.zeros may leave the pages to be allocated at the first write, during a request.
            return torch.empty((slots, heads, max_len, elements), dtype=dtype, device=device).zero_()

        self.slot_layers = tuple(
            SlotLayer(zeros(key_dim, device), zeros(value_dim, device)) for device in layer_devices
        )
        super().__init__(layers=list(self.slot_layers))
        self.devices = tuple(dict.fromkeys(layer.keys.device for layer in self.slot_layers))

    def set_window(self, windows: Windows) -> None:
        """Sets what the next forward pass of transformers' class appends. Raises as `check_capacity`."""
        for window in windows.values():
            self.check_capacity(window)
        for layer in self.slot_layers:
            layer.window = windows[layer.keys.device]

    def check_capacity(self, window: Window) -> None:
        """Raises IndexError if the window does not fit into its slot; nothing is written."""
        if window.end > self.max_len:
            raise IndexError(f"a slot holds {self.max_len} tokens, {window.end} were requested")

    def is_finite(self, slot: int, start: int, end: int) -> bool:
        """Whether the last layer's values at these tokens are finite. NaN of any layer reaches all layers after it."""
        last = self.slot_layers[-1]
        return all(bool(torch.isfinite(part[slot, :, start:end]).all()) for part in (last.keys, last.values))

    def clear(self, slot: int, start: int = 0) -> None:
        """Zeros a slot from a token on: masked values are multiplied by 0, and NaN would come through."""
        for layer in self.slot_layers:
            layer.keys[slot, :, start:] = 0
            layer.values[slot, :, start:] = 0

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of one slot into another."""
        for layer in self.slot_layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]
