"""The forward pass of dense GLM layers over the slots' cache, on one device.

It computes the same as transformers' classes with the same weights (tests compare the two), in a third of the kernels:
at one token a step, the kernels and the Python around them cost as much as a fifth of all products on the CPU; for a
prompt, the many passes over its activations cost as much as a third. One pass takes the next tokens of answers together
with chunks of several prompts, so that the weights are read once for all of them. And its decode step can be recorded
as a CUDA graph.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from app.contract.plan import CPU
from app.engine.errors import is_memory_error
from app.engine.kernels.row_padding import padded_batch, padded_rows
from app.engine.model.cuda_graphs import Capture, CudaCapture, DecodeGraphs
from app.engine.model.dense_layer import DenseLayer, norm_of
from app.engine.model.forward import DecodeStep, PromptChunk, WarmUp, slice_warm_ups, wait_for
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import GraphWindow, Window, batch_window, chunk_window
from app.layouts.graph_sizes import step_sizes

DENSE_MODEL_TYPES = ("glm", "glm4")
"""Native model types with these layers; glm4 also normalises the outputs of attention and MLP."""

log = logging.getLogger(__name__)


class DenseForward:
    """The forward pass of a loaded model that is on one device as a whole."""

    takes_mixed_batches = True

    def __init__(self, model: Any, cache: SlotCache, capture: Capture | None = None) -> None:
        """`capture` records decode steps; without it, CUDA does on a GPU."""
        self._model = model.model
        self._cache = cache
        (self._device,) = cache.devices
        self.layers = len(model.model.layers)
        self.keys_a_row = _keys_a_row(model.config)
        self._norm = norm_of(model.model.norm)
        self._dense_layers = [
            DenseLayer(layer, cache_layer)
            for layer, cache_layer in zip(model.model.layers, cache.slot_layers, strict=True)
        ]
        self._layers: Sequence[DenseLayer | _ReportedLayer] = self._dense_layers
        if capture is None and self._device.type == "cuda":
            capture = CudaCapture()
        self._graphs = self._record(model, capture) if capture else None

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether the model has such layers and is on one device."""
        on_one_device = len({weight.device for weight in model.parameters()}) == 1
        return model.config.model_type in DENSE_MODEL_TYPES and on_one_device

    @torch.inference_mode()
    def __call__(self, step: DecodeStep | None, chunks: Sequence[PromptChunk]) -> torch.Tensor:
        if step is not None and not chunks and self._graphs:
            hidden = self._graphs(step)
            if hidden is not None:
                return hidden
        slot_tokens = self._cache.max_len if self._device.type == CPU else None
        ids, positions, windows, kept = _arrange(step, chunks, self._device, slot_tokens)
        for window in windows:
            self._cache.check_capacity(window)
        token_ids, token_positions = (torch.tensor(values, device=self._device) for values in (ids, positions))
        x = self._model.embed_tokens(token_ids)
        rotary = self._rotary(x, token_positions)
        for layer in self._layers[:-1]:
            x = layer(x, rotary, windows)
        return self._norm(self._layers[-1].last(x, rotary, windows, kept))

    def warm_ups(self, sizes: Sequence[int]) -> Sequence[WarmUp]:
        """Computes one layer only: all are alike, and compiled code depends on the shapes alone."""
        if self._device.type != CPU:
            return []
        layer = self._dense_layers[0]
        own = [WarmUp(rows, functools.partial(layer.warm_up, rows)) for rows in sizes if layer.keeps_code(rows)]
        return [*slice_warm_ups(self._model, sizes), *own]

    @contextlib.contextmanager
    def report_layers(self, done: Callable[[], None]) -> Iterator[None]:
        self._layers = [_ReportedLayer(layer, done) for layer in self._dense_layers]
        try:
            yield
        finally:
            self._layers = self._dense_layers

    @torch.inference_mode()
    def _record(self, model: Any, capture: Capture) -> DecodeGraphs | None:
        """None for int8, whose product depends on the values of its inputs, and if recording fails."""
        module_types = {type(module).__name__ for module in model.modules()}
        if "Linear8bitLt" in module_types:
            return None
        sizes = step_sizes(self._cache.slots, self._cache.max_len, one_row_alone="Linear4bit" in module_types)
        try:
            return DecodeGraphs(self._fixed_step, self._cache, self._norm.weight.dtype, sizes, capture)
        except Exception as error:
            if is_memory_error(error):
                raise
            if self._device.type == "cuda":
                torch.cuda.synchronize()  # raises if more than the recording is broken
            log.warning("decode steps run kernel by kernel: they can't be recorded: %s", error)
            return None

    def _fixed_step(self, ids: torch.Tensor, window: GraphWindow) -> torch.Tensor:
        """A decode step that depends on tensors alone."""
        x = self._model.embed_tokens(ids)
        rotary = self._rotary(x, window.positions)
        for layer in self._layers:
            x = layer(x, rotary, [window])
        return self._norm(x)

    def _rotary(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The rotary embedding at these positions as complex numbers, [tokens, 1, pairs]."""
        cos, sin = self._model.rotary_emb(x.new_empty(0, dtype=torch.float32), positions[None])
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, None, :half], sin[0, :, None, :half])


class _ReportedLayer:
    """A layer that calls `done` when it is computed."""

    def __init__(self, layer: DenseLayer, done: Callable[[], None]) -> None:
        self._layer, self._done = layer, done

    def __call__(self, x: torch.Tensor, rotary: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        return self._report(self._layer(x, rotary, windows))

    def last(
        self, x: torch.Tensor, rotary: torch.Tensor, windows: Sequence[Window], kept: Sequence[tuple[int, Window]]
    ) -> torch.Tensor:
        return self._report(self._layer.last(x, rotary, windows, kept))

    def _report(self, output: torch.Tensor) -> torch.Tensor:
        wait_for(output)
        self._done()
        return output


def _keys_a_row(config: Any) -> float:
    """Multiplications of a row in a layer's products, by those of its scores and values for one key."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    return float(weights / (2 * queries))


def _arrange(
    step: DecodeStep | None, chunks: Sequence[PromptChunk], device: torch.device, slot_tokens: int | None
) -> tuple[list[int], list[int], list[Window], list[tuple[int, Window]]]:
    """Arranges a step and chunks for one pass.

    Returns the ids and positions of all tokens, padded if `slot_tokens` is given; the windows, whose tokens follow each
    other; and what the last layer keeps: the index of the first token and the window of the step, and of the last token
    of each chunk that ends its prompt.
    """
    ids: list[int] = []
    positions: list[int] = []
    windows: list[Window] = []
    kept: list[tuple[int, Window]] = []
    if step is not None:
        ids, positions = list(step.ids), list(step.positions)
        batch = batch_window(step.slots, step.positions, device)
        windows.append(batch)
        kept.append((0, batch))
    for chunk in chunks:
        window = chunk_window(chunk.slot, chunk.start, chunk.end, device, slot_tokens)
        ids += chunk.ids
        positions += range(chunk.start, chunk.end)
        windows.append(window)
        if chunk.ends:
            kept.append((len(ids) - 1, window.last))
    size = len(ids)
    if slot_tokens is not None:
        size = padded_rows(size) if chunks else padded_batch(size)
    padding = [0] * (size - len(ids))
    return ids + padding, positions + padding, windows, kept
