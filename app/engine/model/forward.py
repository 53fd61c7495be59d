"""One forward pass: the next tokens of running answers and chunks of prompts; and transformers' own pass."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from app.contract.plan import CPU
from app.engine.kernels.row_padding import padded_batch, warm_up_slices
from app.engine.model.attention import use_slots
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import Windows, batch_window, chunk_window


@dataclass(frozen=True)
class PromptChunk:
    """Part of a prompt: the tokens after the first `start` of a slot's sequence."""

    slot: int
    start: int
    ids: tuple[int, ...]
    ends: bool = True
    """Whether the output of its last token is needed."""

    @property
    def end(self) -> int:
        """Tokens of the sequence up to the chunk's end."""
        return self.start + len(self.ids)


@dataclass(frozen=True)
class DecodeStep:
    """One new token for each of several sequences, appended to `slots` (ascending)."""

    slots: tuple[int, ...]
    ids: tuple[int, ...]
    lengths: tuple[int, ...]
    """Tokens that each slot of the cache holds."""

    @property
    def positions(self) -> tuple[int, ...]:
        """The position of each id in its sequence."""
        return tuple(self.lengths[slot] for slot in self.slots)


@dataclass(frozen=True)
class WarmUp:
    """Computes products of so many rows, so that what oneDNN keeps for each is allocated before requests come."""

    rows: int
    run: Callable[[], None]


class ForwardPass(Protocol):
    """Runs the model's layers over the slots' cache."""

    layers: int
    keys_a_row: float
    """So many keys cost a row in attention as much as its products in a layer."""

    takes_mixed_batches: bool
    """Whether a pass takes a step and any number of chunks; otherwise it takes either the step or one chunk."""

    def __call__(self, step: DecodeStep | None, chunks: Sequence[PromptChunk]) -> torch.Tensor:
        """Hidden states [rows, hidden]: a row for each of the step's sequences, then for each chunk that `ends`.

        Raises IndexError if a slot is full; then nothing was written.
        """

    def warm_ups(self, sizes: Sequence[int]) -> Sequence[WarmUp]:
        """What to run before passes of so many rows (ascending); empty if nothing is kept for them."""

    def report_layers(self, done: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Calls `done` after each layer of the passes within."""


class NativeForward:
    """transformers' own class, with any layers on any devices."""

    takes_mixed_batches = False
    keys_a_row = math.inf  # unknown: kinds of layers are not distinguished

    def __init__(self, model: Any, cache: SlotCache) -> None:
        use_slots(model)
        self._model = model.model
        self._cache = cache
        self.layers = len(model.model.layers)
        self._first_device: torch.device = model.model.embed_tokens.weight.device

    @torch.inference_mode()
    def __call__(self, step: DecodeStep | None, chunks: Sequence[PromptChunk]) -> torch.Tensor:
        if step is not None:
            return self._run_step(step)
        (chunk,) = chunks
        return self._run_chunk(chunk)

    def warm_ups(self, sizes: Sequence[int]) -> Sequence[WarmUp]:
        """Computes int4's slices only: kinds of layers are not distinguished, and the plan counts the rest."""
        return slice_warm_ups(self._model, sizes)

    @contextlib.contextmanager
    def report_layers(self, done: Callable[[], None]) -> Iterator[None]:
        def report(_layer: Any, _inputs: Any, output: Any) -> None:
            wait_for(output if isinstance(output, torch.Tensor) else output[0])
            done()

        hooks = [layer.register_forward_hook(report) for layer in self._model.layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _run_chunk(self, chunk: PromptChunk) -> torch.Tensor:
        slot_tokens = self._cache.max_len if self._first_device.type == CPU else None
        windows = {
            device: chunk_window(chunk.slot, chunk.start, chunk.end, device, slot_tokens)
            for device in self._cache.devices
        }
        rows = next(iter(windows.values())).rows
        ids = [*chunk.ids, *[chunk.ids[-1]] * (rows - len(chunk.ids))]
        hidden = self._run([ids], [range(chunk.start, chunk.start + rows)], windows)[0]
        return hidden[len(chunk.ids) - 1 : len(chunk.ids)] if chunk.ends else hidden[:0]

    def _run_step(self, step: DecodeStep) -> torch.Tensor:
        windows = {device: batch_window(step.slots, step.positions, device) for device in self._cache.devices}
        padding = [0] * (padded_batch(len(step.ids)) - len(step.ids) if self._first_device.type == CPU else 0)
        ids, positions = ([[value] for value in (*values, *padding)] for values in (step.ids, step.positions))
        return self._run(ids, positions, windows)[: len(step.ids), 0]

    def _run(self, ids: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], windows: Windows) -> torch.Tensor:
        self._cache.set_window(windows)
        input_ids, position_ids = (
            torch.tensor([list(row) for row in rows], device=self._first_device) for rows in (ids, positions)
        )
        output = self._model(
            input_ids=input_ids, position_ids=position_ids, past_key_values=self._cache, use_cache=True, windows=windows
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


def slice_warm_ups(model: Any, sizes: Sequence[int]) -> list[WarmUp]:
    """Of the slices of packed int4, if there are any."""
    sliced = sizes and any(getattr(module, "slices", ()) for module in model.modules())
    return [WarmUp(sizes[-1], functools.partial(warm_up_slices, model, sizes[-1]))] if sliced else []


def wait_for(output: torch.Tensor) -> None:
    """Until a GPU has computed it."""
    if output.is_cuda:
        torch.cuda.synchronize(output.device)
