"""The embedded backend: transformers' native class over slots of a fixed cache, several sequences at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.engine.backend.interface import MOST_LOGPROBS, Counters, NewToken, TokenRequest
from app.engine.backend.prefill_budget import Pace
from app.engine.backend.prefix_slots import Slots
from app.engine.backend.sampler import Picked, pick
from app.engine.backend.sequence import Sampler
from app.engine.errors import NonFiniteLogits, is_broken_device, is_memory_error
from app.engine.kernels.row_padding import filled_down, filled_up_batch, pass_sizes
from app.engine.model.dense_forward import DensePasses
from app.engine.model.forward import NativePasses, Passes, Piece, Step
from app.engine.model.kv_cache import SlotCache
from app.engine.sampling import Sampling


@dataclass
class _Sequence:
    """One that runs: what of its prompt is still to be computed, or behind it the token that was picked last."""

    prompt: tuple[int, ...]
    sampler: Sampler
    last: int | None = None


class TransformersBackend:
    """Prompts are computed in pieces, at most `prefill_chunk` tokens at once; their answers together, a token each.

    While answers run, so little of the prompts comes with or between their steps as `Pace` allows.
    """

    def __init__(self, model: Any, cache: SlotCache, prefill_chunk: int, vocab: int) -> None:
        self.max_model_len = cache.max_len
        self.slots = cache.slots
        self.counters = Counters()
        self._head = model.lm_head
        self._cache = cache
        self._passes: Passes = (DensePasses if DensePasses.fit(model) else NativePasses)(model, cache)
        self._chunk = prefill_chunk
        self._vocab = vocab
        self._held = Slots(cache.slots)
        self._sequences: dict[int, _Sequence] = {}
        self._pace = Pace(prefill_chunk)
        self._turns = 0
        self._decoded_at = 0.0

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
        answers = sorted(slot for slot, sequence in self._sequences.items() if sequence.last is not None)
        prompts = [slot for slot, sequence in self._sequences.items() if sequence.prompt]
        if answers and prompts and not self._passes.together:
            waited = time.monotonic() - self._decoded_at
            answers, prompts = ([], prompts) if waited < self._pace.gap_seconds else (answers, [])
        running = any(sequence.last is not None for sequence in self._sequences.values())
        pieces = self._pieces(prompts, self._pace.room(running), len(answers))
        return self._compute(answers, pieces) if answers or pieces else ()

    def cache_tokens(self) -> int:
        """See `Backend.cache_tokens`."""
        return sum(self._held.length(slot) for slot in list(self._sequences))

    def prove(self) -> None:
        """The last chunk of a prompt that fills the context, then a sampled token for every slot at full length."""
        last, chunk = self.max_model_len - 1, min(self._chunk, self.max_model_len - 1)
        # Ids all over the vocabulary: where outliers of activations cost memory (int8), some should be met.
        ids = tuple(index * self._vocab // chunk for index in range(chunk))
        self._passes.meet(pass_sizes(chunk, self.slots))
        began = time.monotonic()
        self._passes(None, [Piece(0, last - chunk, ids)])
        self._pace.note(time.monotonic() - began, 0, chunk)
        sampling = Sampling(temperature=0.7, top_p=0.9, top_k=0, seed=0, repetition_penalty=1.1, presence_penalty=0.1)
        slots = sorted(self.start(TokenRequest((0,), sampling, logprobs=MOST_LOGPROBS)) for _ in range(self.slots))
        step = Step(tuple(slots), (0,) * self.slots, (last,) * self.slots)
        picked = self._pick(self._passes(step, []), slots)
        for slot in slots:
            self.stop(slot)
            self._held.forget(slot)
            self._cache.clear(slot, last - chunk)
        for new in picked:
            if isinstance(new.token, Exception):
                raise new.token

    def _pieces(self, prompts: list[int], room: int, answers: int) -> list[Piece]:
        """What of the prompts comes next: `room` tokens at most, and with the answers `prefill_chunk`.

        Fewer where the product then needs no filling, unless that is less than half of them.
        """
        most = min(room + answers, self._chunk)
        unfilled, left = filled_down(most) - answers, max(1, most - answers)
        left = unfilled if 2 * unfilled >= left else left
        pieces: list[Piece] = []
        for slot in self._by_turns(prompts):
            prompt = self._sequences[slot].prompt
            ids = prompt[:left]
            pieces.append(Piece(slot, self._held.length(slot), ids, ends=len(ids) == len(prompt)))
            left -= len(ids)
            if not left or not self._passes.together:
                break
        return pieces

    def _by_turns(self, prompts: list[int]) -> list[int]:
        """The oldest and the shortest first in turn: a long one holds nobody up, and none waits for ever."""
        self._turns += 1
        by_length = sorted(prompts, key=lambda slot: len(self._sequences[slot].prompt))
        if not prompts or not self._turns % 2:
            return by_length
        return [prompts[0], *(slot for slot in by_length if slot != prompts[0])]

    def _compute(self, answers: Sequence[int], pieces: Sequence[Piece]) -> Sequence[NewToken]:
        """One pass. Where it fails and had several parts, each is tried by itself: one's error is not the others'."""
        last = {slot: found for slot in answers if (found := self._sequences[slot].last) is not None}
        step = Step(tuple(answers), tuple(last.values()), self._held.lengths()) if answers else None
        began = time.monotonic()
        try:
            hidden = self._passes(step, pieces)
        except Exception as error:
            if pieces and (answers or len(pieces) > 1) and not _ends_engine(error):
                parts = [self._compute(answers, ()) if answers else (), *(self._compute((), [one]) for one in pieces)]
                return [new for part in parts for new in part]
            return [self._fail(slot, error) for slot in (*answers, *(piece.slot for piece in pieces))]
        for slot, token in last.items():
            self._held.append(slot, (token,))
        broken = [self._fail(piece.slot, NonFiniteLogits()) for piece in pieces if not self._advance(piece)]
        rows = [*answers, *(piece.slot for piece in pieces if piece.ends)]
        failed = {new.slot for new in broken}
        kept = [row for row, slot in enumerate(rows) if slot not in failed]
        picked = self._pick(hidden if len(kept) == len(rows) else hidden[kept], [rows[row] for row in kept])
        self._note(began, len(answers), sum(len(piece.ids) for piece in pieces))
        return [*picked, *broken]

    def _advance(self, piece: Piece) -> bool:
        """Notes that a piece was computed; False where it made no numbers."""
        if not self._cache.is_finite(piece.slot, piece.start, piece.end):
            return False
        self._held.append(piece.slot, piece.ids)
        sequence = self._sequences[piece.slot]
        sequence.prompt = sequence.prompt[len(piece.ids) :]
        return True

    def _note(self, began: float, answers: int, prompt_tokens: int) -> None:
        now = time.monotonic()
        self._pace.note(now - began, answers, prompt_tokens)
        self.counters.prefilled_tokens += prompt_tokens
        if answers:
            self._decoded_at = now
            self.counters.decode_steps += 1
            self.counters.decoded_tokens += answers

    @torch.inference_mode()
    def _pick(self, hidden: torch.Tensor, slots: Sequence[int]) -> list[NewToken]:
        """One token a row of [rows, hidden].

        The logits come from two dimensions: given a slice of three, torch 2.13's bf16 product on the CPU copies the
        whole weight, which takes forty times the time and the weight's bytes once more.
        """
        if not slots:
            return []
        try:
            filling = filled_up_batch(len(slots)) - len(slots) if hidden.device.type == "cpu" else 0
            logits = self._head(torch.nn.functional.pad(hidden, (0, 0, 0, filling)))[: len(slots)].float()
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
        if _ends_engine(error):
            raise error
        sequence = self._sequences[slot]
        sequence.prompt, sequence.last = (), None
        self._held.forget(slot)
        self._cache.clear(slot)
        return NewToken(slot, error)


def _ends_engine(error: Exception) -> bool:
    return is_memory_error(error) or is_broken_device(error)
