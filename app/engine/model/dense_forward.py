"""The forward pass of dense GLM layers over the slots' cache, on one device.

It computes what transformers' classes compute with the same modules' weights (tests hold both against each other),
in a third of the kernels: at one token a step those, and the Python around them, cost on the CPU as much as a fifth of
all products; at a prompt the many passes over its activations cost as much as a third. It takes answers' next tokens
and parts of several prompts in one pass: the weights are read once for all of them. And its decode step can be recorded
as a CUDA graph.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from app.engine.errors import is_memory_error
from app.engine.kernels.row_padding import filled_up, filled_up_batch, meet_slices
from app.engine.model.cuda_graphs import Capture, CudaCapture, StepGraphs
from app.engine.model.dense_layer import DenseLayer, norm_of
from app.engine.model.forward import Piece, Step
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import Rows, Window, batch_window, chunk_window
from app.layouts.graph_sizes import step_sizes

KINDS = ("glm", "glm4")
"""Native model types whose layers these are; glm4 normalises what attention and MLP add, too."""
CPU = torch.device("cpu")

log = logging.getLogger(__name__)


class DensePasses:
    """Of a loaded model that lies on one device as a whole."""

    together = True

    def __init__(self, model: Any, cache: SlotCache, capture: Capture | None = None) -> None:
        """`capture` records decode steps; without it, on a GPU, CUDA does."""
        self._model = model.model
        self._cache = cache
        (self._device,) = cache.devices
        self._norm = norm_of(model.model.norm)
        self._layers = [
            DenseLayer(layer, held) for layer, held in zip(model.model.layers, cache.slot_layers, strict=True)
        ]
        if capture is None and self._device.type == "cuda":
            capture = CudaCapture()
        self._recorded = self._record(model, capture) if capture else None

    @staticmethod
    def fit(model: Any) -> bool:
        """Whether the model is of such layers and all of it lies on one device."""
        return model.config.model_type in KINDS and len({weight.device for weight in model.parameters()}) == 1

    @torch.inference_mode()
    def __call__(self, step: Step | None, pieces: Sequence[Piece]) -> torch.Tensor:
        """See `Passes`."""
        if step is not None and not pieces and self._recorded:
            recorded = self._recorded(step)
            if recorded is not None:
                return recorded
        filled_to = self._cache.max_len if self._device == CPU else None
        ids, positions, windows, kept = _arranged(step, pieces, self._device, filled_to)
        for window in windows:
            self._cache.check(window)
        tokens, places = (torch.tensor(each, device=self._device) for each in (ids, positions))
        x = self._model.embed_tokens(tokens)
        turn = self._turn(x, places)
        for layer in self._layers[:-1]:
            x = layer(x, turn, windows)
        return self._norm(self._layers[-1].last(x, turn, windows, kept))

    @torch.inference_mode()
    def meet(self, sizes: Sequence[int]) -> None:
        """See `Passes`. One layer is all: they are alike, and what is compiled goes by shape."""
        if self._device == CPU:
            meet_slices(self._model, sizes[-1])
            for rows in sizes:
                self._layers[0].multiply(rows)

    @torch.inference_mode()
    def _record(self, model: Any, capture: Capture) -> StepGraphs | None:
        """None for int8, whose product looks at its inputs to decide what to compute, and where it can't be done."""
        kinds = {type(module).__name__ for module in model.modules()}
        if "Linear8bitLt" in kinds:
            return None
        sizes = step_sizes(self._cache.slots, self._cache.max_len, one_row_alone="Linear4bit" in kinds)
        try:
            return StepGraphs(self._fixed_step, self._cache, self._norm.weight.dtype, sizes, capture)
        except Exception as error:
            if is_memory_error(error):
                raise
            if self._device.type == "cuda":
                torch.cuda.synchronize()  # raises where more is broken than the recording
            log.warning("decode steps are launched kernel by kernel, they can't be recorded: %s", error)
            return None

    def _fixed_step(self, ids: torch.Tensor, rows: Rows) -> torch.Tensor:
        """A decode step that only tensors steer."""
        x = self._model.embed_tokens(ids)
        turn = self._turn(x, rows.positions)
        for layer in self._layers:
            x = layer(x, turn, [rows])
        return self._norm(x)

    def _turn(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What rotates the heads' pairs at these positions, [tokens, 1, pairs]."""
        cos, sin = self._model.rotary_emb(x.new_empty(0, dtype=torch.float32), positions[None])
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, None, :half], sin[0, :, None, :half])


def _arranged(
    step: Step | None, pieces: Sequence[Piece], device: torch.device, filled_to: int | None
) -> tuple[list[int], list[int], list[Window], list[tuple[int, Window]]]:
    """Ids and positions of all tokens, filled up where `filled_to` is given; the windows, whose tokens follow each
    other; and what is kept of the last layer: windows again, of a piece its last token's or none, and at which token
    each begins."""
    ids: list[int] = []
    positions: list[int] = []
    windows: list[Window] = []
    kept: list[tuple[int, Window]] = []
    if step is not None:
        ids, positions = list(step.ids), list(step.positions)
        batch = batch_window(step.slots, step.positions, device)
        windows.append(batch)
        kept.append((0, batch))
    for piece in pieces:
        window = chunk_window(piece.slot, piece.start, piece.end, device, filled_to)
        ids += piece.ids
        positions += range(piece.start, piece.end)
        windows.append(window)
        if piece.ends:
            kept.append((len(ids) - 1, window.last))
    wanted = len(ids)
    if filled_to is not None:
        wanted = filled_up(wanted) if pieces else filled_up_batch(wanted)
    filling = [0] * (wanted - len(ids))
    return ids + filling, positions + filling, windows, kept
