"""The embedded backend: transformers' native class over slots of a fixed cache, several sequences at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.engine.attention import batch_window, chunk_window, use_slots
from app.engine.backend import MOST_LOGPROBS, Counters, NewToken, TokenRequest
from app.engine.cache import SlotCache, Windows
from app.engine.dense import Dense
from app.engine.errors import NonFiniteLogits, is_broken_device, is_memory_error
from app.engine.picking import Picked, Sampler, pick
from app.engine.prefixes import Slots
from app.engine.rows import filled_down, filled_up, filled_up_batch
from app.engine.sampling import Sampling

GAP_SECONDS = 0.25
"""How long running answers may wait while prompts are computed."""
LEAST_CHUNK = 32


@dataclass
class _Sequence:
    """One that runs: what of its prompt is still to be computed, or behind it the token that was picked last."""

    prompt: tuple[int, ...]
    sampler: Sampler
    last: int | None = None


class TransformersBackend:
    """Prompts are computed in chunks of at most `prefill_chunk` tokens, one sequence at a time; their answers together.

    While answers run, a chunk is only so long that they wait for about `GAP_SECONDS`.
    """

    def __init__(self, model: Any, cache: SlotCache, prefill_chunk: int, vocab: int) -> None:
        use_slots(model)
        self.max_model_len = cache.max_len
        self.slots = cache.slots
        self.counters = Counters()
        self._model = model
        self._cache = cache
        self._dense = Dense(model, cache) if Dense.fits(model, cache) else None
        self._chunk = prefill_chunk
        self._vocab = vocab
        self._first: torch.device = model.model.embed_tokens.weight.device
        self._held = Slots(cache.slots)
        self._sequences: dict[int, _Sequence] = {}
        self._chunks = 0
        self._decoded_at = 0.0
        self._token_seconds = 0.0
        """What a prompt's token took of late."""

    def start(self, request: TokenRequest) -> int:
        """See `Backend.start`."""
        if not request.prompt_ids:
            raise ValueError("an empty prompt cannot be continued")
        seat = self._held.take(request.prompt_ids)
        self.counters.reused_tokens += seat.kept
        if seat.source != seat.slot:
            self._cache.copy(seat.source, seat.slot, seat.kept)
        self._sequences[seat.slot] = _Sequence(request.prompt_ids[seat.kept :], Sampler(request))
        return seat.slot

    def stop(self, slot: int) -> None:
        """See `Backend.stop`."""
        del self._sequences[slot]
        self._held.leave(slot)

    def step(self) -> Sequence[NewToken]:
        """See `Backend.step`."""
        prompts = [slot for slot, sequence in self._sequences.items() if sequence.prompt]
        answers = sorted(slot for slot, sequence in self._sequences.items() if sequence.last is not None)
        waited = time.monotonic() - self._decoded_at
        if prompts and (not answers or waited < GAP_SECONDS):
            return self._prefill(self._next_prompt(prompts), bool(answers))
        return self._decode(answers) if answers else ()

    def cache_tokens(self) -> int:
        """See `Backend.cache_tokens`."""
        return sum(self._held.length(slot) for slot in list(self._sequences))

    def prove(self) -> None:
        """The last chunk of a prompt that fills the context, then a sampled token for every slot at full length."""
        last = self.max_model_len - 1
        chunk = min(self._chunk, last)
        # Ids all over the vocabulary: where outliers of activations cost memory (int8), some should be met.
        ids = tuple(index * self._vocab // chunk for index in range(chunk))
        self._extend(ids, 0, last - chunk)
        sampling = Sampling(0.7, 0.9, 0, 0, repetition_penalty=1.1, presence_penalty=0.1)
        slots = [self.start(TokenRequest((0,), sampling, logprobs=MOST_LOGPROBS)) for _ in range(self.slots)]
        picked = self._pick(self._one_each([0] * self.slots, slots, [last] * self.slots), slots)
        for slot in slots:
            self.stop(slot)
            self._held.forget(slot)
            self._cache.clear(slot)
        for new in picked:
            if isinstance(new.token, Exception):
                raise new.token

    def _next_prompt(self, prompts: list[int]) -> int:
        """The oldest and the shortest in turn: a long one holds nobody up, and none waits for ever."""
        self._chunks += 1
        return prompts[0] if self._chunks % 2 else min(prompts, key=lambda slot: len(self._sequences[slot].prompt))

    def _prefill(self, slot: int, hurry: bool) -> Sequence[NewToken]:
        sequence = self._sequences[slot]
        ids = sequence.prompt[: self._chunk_size() if hurry else self._chunk]
        start, began = self._held.length(slot), time.monotonic()
        if self._first.type == "cpu" and filled_up(len(ids)) > self.max_model_len - start:
            ids = ids[: filled_down(len(ids))]  # filled up it would reach beyond the slot; the rest comes next
        try:
            hidden = self._extend(ids, slot, start)
            if not self._cache.is_finite(slot, start, start + len(ids)):
                raise NonFiniteLogits
        except Exception as error:
            return [self._fail(slot, error)]
        self._held.append(slot, ids)
        self.counters.prefilled_tokens += len(ids)
        self._token_seconds = (time.monotonic() - began) / len(ids)
        sequence.prompt = sequence.prompt[len(ids) :]
        return () if sequence.prompt else self._pick(hidden, [slot])

    def _chunk_size(self) -> int:
        fitting = int(GAP_SECONDS / self._token_seconds) if self._token_seconds else self._chunk
        return max(min(LEAST_CHUNK, self._chunk), min(self._chunk, fitting))

    def _decode(self, slots: list[int]) -> Sequence[NewToken]:
        ids = [last for slot in slots if (last := self._sequences[slot].last) is not None]
        try:
            hidden = self._one_each(ids, slots, [self._held.length(slot) for slot in slots])
        except Exception as error:
            return [self._fail(slot, error) for slot in slots]
        for slot, token in zip(slots, ids, strict=True):
            self._held.append(slot, (token,))
        self.counters.decode_steps += 1
        self.counters.decoded_tokens += len(slots)
        picked = self._pick(hidden, slots)
        self._decoded_at = time.monotonic()
        return picked

    def _extend(self, ids: Sequence[int], slot: int, start: int) -> torch.Tensor:
        """Appends ids to one sequence of `start` tokens; returns the last one's hidden state, [1, hidden]."""
        room = self.max_model_len - start
        # What stands behind the last id is seen by none of them, and written over by what comes next.
        count = min(filled_up(len(ids)), room) if self._first.type == "cpu" else len(ids)
        filled, end = [*ids, *[ids[-1]] * (count - len(ids))], start + count
        windows = {device: chunk_window(slot, start, end, device) for device in self._cache.devices}
        return self._forward([filled], [range(start, end)], windows, only=len(ids) - 1)[:, 0]

    def _one_each(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Appends one id to each sequence; returns their hidden states, [rows, hidden]."""
        windows = {device: batch_window(slots, positions, device) for device in self._cache.devices}
        filling = filled_up_batch(len(ids)) - len(ids) if self._first.type == "cpu" else 0
        rows = [[token] for token in [*ids, *[0] * filling]]
        return self._forward(rows, [[place] for place in [*positions, *[0] * filling]], windows)[: len(ids), 0]

    @torch.inference_mode()
    def _forward(
        self,
        ids: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        windows: Windows,
        only: int | None = None,
    ) -> torch.Tensor:
        """Hidden states [rows, new, hidden]; of a chunk, `only` that token's, [1, 1, hidden]."""
        self._cache.aim(windows)
        tokens, places = (torch.tensor([list(row) for row in each], device=self._first) for each in (ids, positions))
        if self._dense:
            return self._dense(tokens, places, windows, only)
        output = self._model.model(
            input_ids=tokens, position_ids=places, past_key_values=self._cache, use_cache=True, windows=windows
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden if only is None else hidden[:, only : only + 1]

    @torch.inference_mode()
    def _pick(self, hidden: torch.Tensor, slots: Sequence[int]) -> list[NewToken]:
        """One token a row of [rows, hidden].

        The logits come from two dimensions: given a slice of three, torch 2.13's bf16 product on the CPU copies the
        whole weight, which takes forty times the time and the weight's bytes once more.
        """
        try:
            logits = self._model.lm_head(hidden).float()
            picked = pick(logits, [self._sequences[slot].sampler for slot in slots])
        except Exception as error:
            return [self._fail(slot, error) for slot in slots]
        return [self._next(slot, found) for slot, found in zip(slots, picked, strict=True)]

    def _next(self, slot: int, found: Picked) -> NewToken:
        if isinstance(found.token, Exception):
            return self._fail(slot, found.token)
        self._sequences[slot].last = found.token
        return NewToken(slot, found.token, found.logprobs)

    def _fail(self, slot: int, error: Exception) -> NewToken:
        """Ends what went wrong with these sequences alone; raises what ends the engine."""
        if is_memory_error(error) or is_broken_device(error):
            raise error
        sequence = self._sequences[slot]
        sequence.prompt, sequence.last = (), None
        self._held.forget(slot)
        self._cache.clear(slot)
        return NewToken(slot, error)
