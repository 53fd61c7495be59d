"""Where every value of the config comes from."""

from __future__ import annotations

from app.contract.plan import Origin, OriginKind, Rung, Term
from entrypoint.messages.sentence import text
from entrypoint.plan.activations import PREFILL_CHUNK
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.verdicts import CONTEXT_STEP, cache_exceeds_weights, most_slots
from entrypoint.reasons.reason import Reason
from entrypoint.reasons.setting import (
    CacheWithinWeights,
    ChunkBoundsMemory,
    ContextFromMemory,
    ContextKeepsGpuLayers,
    CpuSlotLimit,
    DefaultContext,
    FreeOnDevices,
    ModelLimit,
    SetByYou,
    SlotLimit,
    SlotsFromMemory,
    SlotsKeepGpuLayers,
)


def origins(inputs: PlanInputs, rung: Rung | None, default_context: int) -> tuple[Origin, ...]:
    """Every value of the config with where it comes from; `default_context` is aimed at if none is set."""
    settings, model = inputs.settings, inputs.model
    rows = [Origin("GLM_MODEL", model.name, "set" if settings.model else "default", model.why)]
    if rung is None:
        return tuple(rows)
    stepped = bool(inputs.only) or any(not failed.max_num_seqs for failed in inputs.failed_rungs)
    measured: OriginKind = "stepped_down" if stepped else "measured"
    rows.append(Origin("GLM_PRECISION", rung.precision, "set" if settings.precision else measured, rung.reason))
    free = FreeOnDevices(rung.free_bytes, len(rung.devices))
    rows.append(Origin("device", rung.device, "measured", text(free)))
    for name, value, setting, reason in (
        ("GLM_MAX_MODEL_LEN", rung.max_model_len, settings.max_model_len, _context(inputs, rung, default_context)),
        ("GLM_MAX_NUM_SEQS", rung.max_num_seqs, settings.max_num_seqs, _slots(inputs, rung)),
    ):
        fewer = name == "GLM_MAX_NUM_SEQS" and inputs.fewer_slots(rung.precision, rung.devices)
        by_default: OriginKind = "default" if isinstance(reason, (CpuSlotLimit, CacheWithinWeights)) else measured
        kind: OriginKind = "set" if setting else "stepped_down" if fewer else by_default
        rows.append(Origin(name, str(value), kind, text(SetByYou() if setting else reason)))
    rows.append(Origin("prefill_chunk", str(PREFILL_CHUNK), "default", text(ChunkBoundsMemory())))
    return tuple(rows)


def _context(inputs: PlanInputs, rung: Rung, default: int) -> Reason:
    """Why this context, if Berth chose it."""
    if rung.max_model_len == inputs.shape.context:
        return ModelLimit()
    if _mixed(rung):
        return ContextKeepsGpuLayers()
    if rung.max_model_len >= default and (reason := _bound_by_weights(inputs, rung, "GLM_MAX_MODEL_LEN")):
        return reason
    return DefaultContext() if rung.max_model_len == default else ContextFromMemory(rung.free_bytes)


def _slots(inputs: PlanInputs, rung: Rung) -> Reason:
    """Why so many requests at once, if Berth chose it."""
    if fewer := inputs.fewer_slots(rung.precision, rung.devices):
        return fewer.why
    if _mixed(rung):
        return SlotsKeepGpuLayers()
    if rung.max_num_seqs == inputs.most_slots:
        return SlotLimit(rung.max_num_seqs)
    if rung.max_num_seqs == most_slots(inputs, rung.devices):
        return CpuSlotLimit(rung.max_num_seqs, rung.slot_bytes)
    if reason := _bound_by_weights(inputs, rung, "GLM_MAX_NUM_SEQS"):
        return reason
    return SlotsFromMemory(rung.free_bytes, rung.max_model_len)


def _bound_by_weights(inputs: PlanInputs, rung: Rung, setting: str) -> Reason | None:
    """The reason, if the cache of a rung on the CPU would exceed the weights with one more slot or step of context."""
    sizes = {term.name: term.bytes for term in rung.terms}
    cache = sizes["kv_cache"]
    more = rung.slot_bytes if setting == "GLM_MAX_NUM_SEQS" else cache * CONTEXT_STEP // rung.max_model_len
    grown = tuple(Term("kv_cache", cache + more) if term.name == "kv_cache" else term for term in rung.terms)
    if not cache_exceeds_weights(inputs, rung.devices, grown):
        return None
    return CacheWithinWeights(setting=setting, cache_bytes=cache, weights_bytes=sizes["weights"])


def _mixed(rung: Rung) -> bool:
    return bool(rung.placements) and rung.uses_cpu
