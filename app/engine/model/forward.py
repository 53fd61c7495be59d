"""What one forward pass computes: the next token of running answers, parts of prompts; and transformers' own pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from app.engine.kernels.row_padding import filled_up_batch, meet_slices
from app.engine.model.attention import use_slots
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import Windows, batch_window, chunk_window

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Piece:
    """A part of a prompt: the tokens behind the first `start` of a slot's sequence."""

    slot: int
    start: int
    ids: tuple[int, ...]
    ends: bool = True
    """Its last token's output is wanted."""

    @property
    def end(self) -> int:
        """Tokens of the sequence that are there after it."""
        return self.start + len(self.ids)


@dataclass(frozen=True)
class Step:
    """A token of each of several sequences: the ids go behind what `slots` hold, which ascend."""

    slots: tuple[int, ...]
    ids: tuple[int, ...]
    lengths: tuple[int, ...]
    """Tokens that each slot of the cache holds."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the ids go."""
        return tuple(self.lengths[slot] for slot in self.slots)


class Passes(Protocol):
    """Runs the model's layers over the slots' cache."""

    together: bool
    """Whether a pass takes a step and any number of pieces; else it is one or the other, and one piece."""

    def __call__(self, step: Step | None, pieces: Sequence[Piece]) -> torch.Tensor:
        """Hidden states [rows, hidden]: a row for each of the step's sequences, then for each piece that `ends`.

        Raises IndexError where a slot has no room; nothing was written.
        """

    def meet(self, sizes: Sequence[int]) -> None:
        """Computes products of so many rows before requests do, so that what oneDNN keeps of each is there at once."""


class NativePasses:
    """transformers' own class, whatever its layers are and wherever they lie."""

    together = False

    def __init__(self, model: Any, cache: SlotCache) -> None:
        use_slots(model)
        self._model = model.model
        self._cache = cache
        self._first: torch.device = model.model.embed_tokens.weight.device

    @torch.inference_mode()
    def __call__(self, step: Step | None, pieces: Sequence[Piece]) -> torch.Tensor:
        """See `Passes`."""
        if step is not None:
            return self._step(step)
        (piece,) = pieces
        return self._piece(piece)

    @torch.inference_mode()
    def meet(self, sizes: Sequence[int]) -> None:
        """See `Passes`. Slices alone: kinds of layers are not told apart, and the plan counts what they compile."""
        meet_slices(self._model, sizes[-1])

    def _piece(self, piece: Piece) -> torch.Tensor:
        filled_to = self._cache.max_len if self._first == CPU else None
        windows = {
            device: chunk_window(piece.slot, piece.start, piece.end, device, filled_to)
            for device in self._cache.devices
        }
        rows = next(iter(windows.values())).rows
        ids = [*piece.ids, *[piece.ids[-1]] * (rows - len(piece.ids))]
        hidden = self._forward([ids], [range(piece.start, piece.start + rows)], windows)[0]
        return hidden[len(piece.ids) - 1 : len(piece.ids)] if piece.ends else hidden[:0]

    def _step(self, step: Step) -> torch.Tensor:
        windows = {device: batch_window(step.slots, step.positions, device) for device in self._cache.devices}
        filling = [0] * (filled_up_batch(len(step.ids)) - len(step.ids) if self._first == CPU else 0)
        ids, places = ([[value] for value in (*each, *filling)] for each in (step.ids, step.positions))
        return self._forward(ids, places, windows)[: len(step.ids), 0]

    def _forward(
        self, ids: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], windows: Windows
    ) -> torch.Tensor:
        self._cache.aim(windows)
        tokens, places = (torch.tensor([list(row) for row in each], device=self._first) for each in (ids, positions))
        output = self._model(
            input_ids=tokens, position_ids=places, past_key_values=self._cache, use_cache=True, windows=windows
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden
