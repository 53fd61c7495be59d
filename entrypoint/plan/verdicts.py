"""The verdict on one candidate, with its reason, by pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.contract.limits import MOST_CPU_SLOTS
from app.contract.plan import CPU, Rung, Term, Verdict
from entrypoint.plan import refusals
from entrypoint.plan.activations import MIB
from entrypoint.plan.footprint import Load, int4_fits_kernels, saved_bytes, weights_bytes
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.ladder import Candidate
from entrypoint.plan.placement import Budget
from entrypoint.reasons.plan import (
    ExpertsStay,
    FitsAsStored,
    FitsToo,
    FitsWithCpu,
    HighestThatFits,
    LayersIndivisible,
    PrecisionExcluded,
    RowsNotInBlocks,
    ServedBefore,
    SetAndFits,
    ShortOfMemory,
    StoredOtherwise,
)
from entrypoint.reasons.reason import Reason

TARGET_CONTEXT = 8192
CONTEXT_STEP = 256
SMALL_CACHE_BYTES = 256 * MIB
"""So much is not missed on any machine that runs a model: it may exceed the weights of a tiny one."""


@dataclass(frozen=True)
class LadderRow:
    """A candidate with its rung of the plan and the reason for the rung's verdict."""

    candidate: Candidate
    rung: Rung
    reason: Reason


def target_context(inputs: PlanInputs) -> int:
    return inputs.settings.max_model_len or min(TARGET_CONTEXT, inputs.shape.context)


def at_target(inputs: PlanInputs, candidate: Candidate) -> Budget:
    return Budget(inputs, candidate, target_context(inputs), inputs.settings.max_num_seqs or 1)


def judge(inputs: PlanInputs, budget: Budget, chosen: Rung | None) -> LadderRow:
    fits = budget.fits()
    if exclusion := excluded(inputs, budget.candidate, fits):
        return judged(inputs, budget, *exclusion)
    if not fits:
        return judged(inputs, budget, "too_large", *_lack(budget))
    if chosen is not None:
        same_devices = budget.candidate.names == chosen.devices
        return judged(inputs, budget, "fits", FitsToo(chosen.precision, chosen.devices, same_devices))
    grown = _grow(inputs, budget)
    return judged(inputs, grown, "chosen", _why_chosen(inputs, grown))


def judged(inputs: PlanInputs, budget: Budget, verdict: Verdict, reason: Reason, *notes: Reason) -> LadderRow:
    if verdict != "unsupported":
        notes = (*notes, *_experts_stay(inputs, budget.candidate))
    return LadderRow(budget.candidate, budget.rung(verdict, reason, notes), reason)


def excluded(inputs: PlanInputs, candidate: Candidate, fits: bool) -> tuple[Verdict, Reason] | None:
    if candidate.unsupported:
        return "unsupported", candidate.unsupported
    packed = None in candidate.devices and inputs.host.cpu_packs_int4
    if candidate.precision == "int4" and not int4_fits_kernels(inputs.layout, inputs.shape, packed):
        return "unsupported", RowsNotInBlocks()
    requested = inputs.settings.precision
    if requested is not None and candidate.precision != requested:
        if stored := inputs.stored:
            return "excluded", StoredOtherwise(stored.precision, stored.format, requested)
        return "excluded", PrecisionExcluded(requested, fits)
    if inputs.only and (candidate.precision, candidate.names) != inputs.only:
        return "excluded", ServedBefore(inputs.only[0])
    for failed in inputs.failed_rungs:
        same = (failed.precision, failed.devices) == (candidate.precision, candidate.names)
        if requested is None and same and not failed.max_num_seqs:
            return "excluded", failed.why
    return None


def _why_chosen(inputs: PlanInputs, budget: Budget) -> Reason:
    devices, need, free = budget.candidate.names, budget.need_bytes, budget.free_bytes
    if stored := inputs.stored:
        return FitsAsStored(
            devices=devices, layers=budget.spread, need_bytes=need, free_bytes=free, format=stored.format
        )
    if inputs.settings.precision:
        kind: type[SetAndFits | FitsWithCpu | HighestThatFits] = SetAndFits
    else:
        kind = FitsWithCpu if budget.candidate.mixed else HighestThatFits
    return kind(devices=devices, layers=budget.spread, need_bytes=need, free_bytes=free)


def _lack(budget: Budget) -> tuple[Reason, ...]:
    """What a candidate that does not fit lacks: memory of its devices, or the host's for loading; notes follow."""
    ram, short = refusals.short_of_ram(budget), budget.short_bytes
    if ram and not short:
        return (ram,)
    reason = ShortOfMemory(budget.candidate.names, budget.need_bytes, budget.free_bytes, short)
    if ram:
        return reason, ram
    enough_together = len(budget.placements) > 1 and budget.need_bytes <= budget.free_bytes
    return (reason, LayersIndivisible()) if enough_together else (reason,)


def _experts_stay(inputs: PlanInputs, candidate: Candidate) -> tuple[Reason, ...]:
    """How little quantising saves if bitsandbytes leaves fused experts as they are."""
    if not inputs.shape.experts or candidate.precision not in ("int8", "int4") or inputs.stored:
        return ()
    load = Load(candidate.precision, candidate.dtype, 1, 1)
    saved = saved_bytes(inputs.layout, inputs.shape, load)
    return (ExpertsStay(candidate.precision, saved, weights_bytes(inputs.layout, inputs.shape, load)),)


def _grow(inputs: PlanInputs, budget: Budget) -> Budget:
    """What is left buys more slots, then a longer context; with layers on the CPU, fewer of these instead."""
    settings, candidate, context = inputs.settings, budget.candidate, budget.max_model_len
    most, longest, slots = most_slots(inputs, candidate.names), inputs.shape.context, budget.max_num_seqs
    if candidate.mixed:
        return budget
    if settings.max_num_seqs is None:
        if fewer := inputs.fewer_slots(candidate.precision, candidate.names):
            most, longest = min(most, fewer.max_num_seqs), max(context, min(longest, fewer.max_model_len))
        slots = largest(1, most, 1, lambda count: _affords(replace(budget, max_num_seqs=count))) or 1
    grown = replace(budget, max_num_seqs=slots)
    if settings.max_model_len is None and (settings.max_num_seqs is not None or slots == most):
        context = (
            largest(context, longest, CONTEXT_STEP, lambda n: _affords(replace(grown, max_model_len=n))) or context
        )
    return replace(grown, max_model_len=context)


def most_slots(inputs: PlanInputs, devices: Sequence[str]) -> int:
    """The most slots that are chosen automatically on these devices."""
    spare = inputs.spare_memory and tuple(devices) == (CPU,)
    return min(inputs.most_slots, MOST_CPU_SLOTS) if spare else inputs.most_slots


def _affords(budget: Budget) -> bool:
    """Whether what is chosen automatically may grow so far."""
    return budget.fits() and not cache_exceeds_weights(budget.inputs, budget.candidate.names, budget.terms)


def cache_exceeds_weights(inputs: PlanInputs, devices: Sequence[str], terms: Sequence[Term]) -> bool:
    """Whether the cache takes more than a model on the CPU should by itself: other programs need memory too."""
    if not inputs.spare_memory or tuple(devices) != (CPU,):
        return False
    by_name = {term.name: term.bytes for term in terms}
    return by_name["kv_cache"] > max(by_name["weights"], SMALL_CACHE_BYTES)


def largest(least: int, most: int, step: int, holds: Callable[[int], bool]) -> int | None:
    """The largest value from `least` to `most` that fits, in steps; `most` itself counts too. Monotone `holds`."""
    if not holds(least):
        return None
    if holds(most):
        return most
    low, high = 0, (most - least) // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(min(most, least + middle * step)) else (low, middle)
    return least + low * step
