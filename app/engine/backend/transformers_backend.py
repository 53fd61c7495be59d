"""The embedded backend: transformers' native class over the slots of a fixed cache, several sequences at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.contract.limits import MOST_LOGPROBS
from app.engine.backend.interface import Counters, NewToken, TokenRequest, no_report, pass_cost
from app.engine.backend.prefill_budget import PrefillBudget
from app.engine.backend.prefix_slots import PrefixSlots
from app.engine.backend.sampler import SampledToken, sample
from app.engine.backend.sequence import SamplingState
from app.engine.errors import NonFiniteLogits, is_broken_device, is_memory_error
from app.engine.kernels.row_padding import padded_batch, padded_rows, padded_sizes, unpadded_rows
from app.engine.model.dense_forward import DenseForward
from app.engine.model.forward import DecodeStep, ForwardPass, NativeForward, PromptChunk, WarmUp
from app.engine.model.kv_cache import SlotCache
from app.engine.sampling import Sampling


@dataclass
class _Sequence:
    """A running sequence: the part of its prompt still to be computed, and then the token sampled last."""

    prompt: tuple[int, ...]
    sampling: SamplingState
    last: int | None = None


class TransformersBackend:
    """Computes prompts in chunks of at most `prefill_chunk` tokens, and answers together, a token each.

    While answers run, `PrefillBudget` says how many prompt tokens come with or between their steps.
    """

    def __init__(self, model: Any, cache: SlotCache, prefill_chunk: int, vocab: int) -> None:
        self.max_model_len = cache.max_len
        self.slots = cache.slots
        self.counters = Counters()
        self._head = model.lm_head
        self._cache = cache
        self._forward: ForwardPass = (DenseForward if DenseForward.supports(model) else NativeForward)(model, cache)
        self._prefill_chunk = prefill_chunk
        self._vocab = vocab
        self._prefixes = PrefixSlots(cache.slots)
        self._sequences: dict[int, _Sequence] = {}
        self._budget = PrefillBudget(prefill_chunk)
        self._prefills = 0
        self._decoded_at = 0.0

    def add_request(self, request: TokenRequest) -> int:
        if not request.prompt_ids:
            raise ValueError("an empty prompt cannot be continued")
        assignment = self._prefixes.assign(request.prompt_ids)
        self.counters.reused_tokens += assignment.reused_tokens
        if assignment.source != assignment.slot:
            self._cache.copy(assignment.source, assignment.slot, assignment.reused_tokens)
        prompt = request.prompt_ids[assignment.reused_tokens :]
        self._sequences[assignment.slot] = _Sequence(prompt, SamplingState(request))
        return assignment.slot

    def finish_request(self, slot: int) -> None:
        del self._sequences[slot]
        self._prefixes.release(slot)

    def step(self) -> Sequence[NewToken]:
        answers = sorted(slot for slot, sequence in self._sequences.items() if sequence.last is not None)
        prompts = [slot for slot, sequence in self._sequences.items() if sequence.prompt]
        if answers and prompts and not self._forward.takes_mixed_batches:
            waited = time.monotonic() - self._decoded_at
            answers, prompts = ([], prompts) if waited < self._budget.max_gap_seconds else (answers, [])
        running = any(sequence.last is not None for sequence in self._sequences.values())
        chunks = self._next_chunks(prompts, self._budget.next_tokens(running), len(answers))
        return self._compute(answers, chunks) if answers or chunks else ()

    def cache_tokens(self) -> int:
        return sum(self._prefixes.length(slot) for slot in list(self._sequences))

    def profile_costs(self) -> Sequence[float]:
        layers, size = self._forward.layers, self._profile_chunk
        # Each of its rows attends to the whole context.
        row = 1 + self.max_model_len / self._forward.keys_a_row
        warm_ups = (pass_cost(warm_up.rows) / layers for warm_up in self._warm_ups())
        return (*warm_ups, *[pass_cost(size * row) / layers] * layers, pass_cost(self.slots * row))

    def profile_run(self, step_done: Callable[[], None] = no_report) -> None:
        """Runs the last chunk of a prompt that fills the context, then a sampled token in every slot at full length.

        Its steps: each warm-up, each layer of the chunk, and the tokens.
        """
        last, size = self.max_model_len - 1, self._profile_chunk
        # Ids from the whole vocabulary: int8 takes more memory for outliers of activations, so some should occur.
        ids = tuple(index * self._vocab // size for index in range(size))
        for warm_up in self._warm_ups():
            warm_up.run()
            step_done()
        began = time.monotonic()
        with self._forward.report_layers(step_done):
            self._forward(None, [PromptChunk(0, last - size, ids)])
        self._budget.record_pass(time.monotonic() - began, 0, size)
        sampling = Sampling(temperature=0.7, top_p=0.9, top_k=0, seed=0, repetition_penalty=1.1, presence_penalty=0.1)
        request = TokenRequest((0,), sampling, logprobs=MOST_LOGPROBS)
        slots = sorted(self.add_request(request) for _ in range(self.slots))
        step = DecodeStep(tuple(slots), (0,) * self.slots, (last,) * self.slots)
        tokens = self._sample(self._forward(step, []), slots)
        for slot in slots:
            self.finish_request(slot)
            self._prefixes.clear(slot)
            self._cache.clear(slot, last - size)
        for new in tokens:
            if isinstance(new.token, Exception):
                raise new.token
        step_done()

    @property
    def _profile_chunk(self) -> int:
        return min(self._prefill_chunk, self.max_model_len - 1)

    def _warm_ups(self) -> Sequence[WarmUp]:
        """Of the sizes that the steps of the proof don't have."""
        computed = padded_rows(self._profile_chunk), padded_batch(self.slots)
        sizes = padded_sizes(self._profile_chunk, self.slots)
        return self._forward.warm_ups([size for size in sizes if size not in computed])

    def _next_chunks(self, prompts: list[int], tokens: int, answers: int) -> list[PromptChunk]:
        """The next parts of the prompts: at most `tokens`, and at most `prefill_chunk` together with the answers.

        Fewer if the product then needs no padding, unless that is less than half of them.
        """
        most = min(tokens + answers, self._prefill_chunk)
        unpadded, left = unpadded_rows(most) - answers, max(1, most - answers)
        left = unpadded if 2 * unpadded >= left else left
        chunks: list[PromptChunk] = []
        for slot in self._prefill_order(prompts):
            prompt = self._sequences[slot].prompt
            ids = prompt[:left]
            chunks.append(PromptChunk(slot, self._prefixes.length(slot), ids, ends=len(ids) == len(prompt)))
            left -= len(ids)
            if not left or not self._forward.takes_mixed_batches:
                break
        return chunks

    def _prefill_order(self, prompts: list[int]) -> list[int]:
        """Alternates between the oldest and the shortest first: a long one delays nobody, and none waits for ever."""
        self._prefills += 1
        by_length = sorted(prompts, key=lambda slot: len(self._sequences[slot].prompt))
        if not prompts or not self._prefills % 2:
            return by_length
        return [prompts[0], *(slot for slot in by_length if slot != prompts[0])]

    def _compute(self, answers: Sequence[int], chunks: Sequence[PromptChunk]) -> Sequence[NewToken]:
        """One forward pass. If one of several parts fails it, each part is computed by itself."""
        last = {slot: token for slot in answers if (token := self._sequences[slot].last) is not None}
        step = DecodeStep(tuple(answers), tuple(last.values()), self._prefixes.lengths()) if answers else None
        began = time.monotonic()
        try:
            hidden = self._forward(step, chunks)
        except Exception as error:
            if chunks and (answers or len(chunks) > 1) and not _ends_engine(error):
                parts = [self._compute(answers, ()) if answers else (), *(self._compute((), [one]) for one in chunks)]
                return [new for part in parts for new in part]
            return [self._fail(slot, error) for slot in (*answers, *(chunk.slot for chunk in chunks))]
        for slot, token in last.items():
            self._prefixes.append(slot, (token,))
        broken = [self._fail(chunk.slot, NonFiniteLogits()) for chunk in chunks if not self._advance(chunk)]
        rows = [*answers, *(chunk.slot for chunk in chunks if chunk.ends)]
        failed = {new.slot for new in broken}
        kept = [row for row, slot in enumerate(rows) if slot not in failed]
        tokens = self._sample(hidden if len(kept) == len(rows) else hidden[kept], [rows[row] for row in kept])
        self._record_pass(began, len(answers), sum(len(chunk.ids) for chunk in chunks))
        return [*tokens, *broken]

    def _advance(self, chunk: PromptChunk) -> bool:
        """Records that a chunk was computed; False if its output is not finite."""
        if not self._cache.is_finite(chunk.slot, chunk.start, chunk.end):
            return False
        self._prefixes.append(chunk.slot, chunk.ids)
        sequence = self._sequences[chunk.slot]
        sequence.prompt = sequence.prompt[len(chunk.ids) :]
        return True

    def _record_pass(self, began: float, answers: int, prompt_tokens: int) -> None:
        now = time.monotonic()
        self._budget.record_pass(now - began, answers, prompt_tokens)
        self.counters.prefilled_tokens += prompt_tokens
        if answers:
            self._decoded_at = now
            self.counters.decode_steps += 1
            self.counters.decoded_tokens += answers

    @torch.inference_mode()
    def _sample(self, hidden: torch.Tensor, slots: Sequence[int]) -> list[NewToken]:
        """One token a row of [rows, hidden].

        The head multiplies two dimensions: given a slice of three, torch 2.13's bf16 product on the CPU copies the
        whole weight, which takes forty times the time and the weight's bytes once more.
        """
        if not slots:
            return []
        try:
            padding = padded_batch(len(slots)) - len(slots) if hidden.device.type == "cpu" else 0
            logits = self._head(torch.nn.functional.pad(hidden, (0, 0, 0, padding)))[: len(slots)].float()
            tokens = sample(logits, [self._sequences[slot].sampling for slot in slots])
        except Exception as error:
            return [self._fail(slot, error) for slot in slots]
        return [self._new_token(slot, token) for slot, token in zip(slots, tokens, strict=True)]

    def _new_token(self, slot: int, sampled: SampledToken) -> NewToken:
        if isinstance(sampled.token, Exception):
            return self._fail(slot, sampled.token)
        self._sequences[slot].last = sampled.token
        return NewToken(slot, sampled.token, sampled.logprobs)

    def _fail(self, slot: int, error: Exception) -> NewToken:
        """Fails one sequence. Raises the error if it ends the engine."""
        if _ends_engine(error):
            raise error
        sequence = self._sequences[slot]
        sequence.prompt, sequence.last = (), None
        self._prefixes.clear(slot)
        self._cache.clear(slot)
        return NewToken(slot, error)


def _ends_engine(error: Exception) -> bool:
    return is_memory_error(error) or is_broken_device(error)
