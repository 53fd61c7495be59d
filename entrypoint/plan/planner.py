"""Settings, devices, host and checkpoint to a `Plan`, by pure functions: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.contract.plan import Plan, Precision, Refusal, Rung, Text, Verdict, gpus_of
from entrypoint.plan import messages, refusals
from entrypoint.plan.footprint import Load, int4_fits_kernels, saved_bytes, weights_bytes
from entrypoint.plan.inputs import MOST_SLOTS, Question
from entrypoint.plan.ladder import Candidate, Step, mixed, stages
from entrypoint.plan.origins import origins
from entrypoint.plan.placement import cpu_layers, fits, lacking_bytes, lay_out
from entrypoint.settings.settings import Settings, SettingsError

TARGET_CONTEXT = 8192
LEAST_CONTEXT = 2048
CONTEXT_STEP = 256

Row = tuple[Candidate, Rung]


def make_plan(question: Question) -> Plan:
    """Chooses the highest rung that fits, or says why none does.

    Raises:
        SettingsError: a setting is out of the model's or the engine's range.
    """
    _check_range(question)
    if question.only and not set(gpus_of(question.only[1])) <= {device.uuid for device in question.devices}:
        question = replace(question, only=None)  # a GPU is gone
    rungs, chosen = _choose(question)
    refusal = None if chosen else _refuse(question, rungs)
    return Plan(
        model=question.model,
        host=question.host,
        devices=question.devices,
        rungs=rungs,
        chosen=chosen,
        refusal=refusal,
        origins=origins(question, chosen, min(TARGET_CONTEXT, question.shape.context)),
    )


def _check_range(question: Question) -> None:
    asked, own = question.settings.max_model_len, question.shape.context
    if asked is not None and asked > own:
        raise SettingsError(f"GLM_MAX_MODEL_LEN={asked}: should be at most {own}, the context of {question.model.name}")


def _choose(question: Question) -> tuple[tuple[Rung, ...], Rung | None]:
    """All rungs in ladder order, stage by stage, and the chosen one."""
    rungs: list[Rung] = []
    chosen: Rung | None = None
    for stage in stages(question):
        if chosen and mixed(stage):
            continue  # of no interest where GPUs alone serve
        rows: list[Row] = []
        for step in stage:
            for row in _rows(question, step, chosen):
                rows.append(row)
                chosen = chosen or (row[1] if row[1].verdict == "chosen" else None)
        if chosen is None and (short := _shorter(question, stage, rows)):
            place, chosen = short
            rows[place] = rows[place][0], chosen
        rungs += [rung for _, rung in rows]
    return tuple(rungs), chosen


def _target(question: Question) -> int:
    return question.settings.max_model_len or min(TARGET_CONTEXT, question.shape.context)


def _rows(question: Question, step: Step, chosen: Rung | None) -> list[Row]:
    """A row for each group of places, up to one that may be used."""
    rows: list[Row] = []
    for group in step.groups:
        candidate = _best(question, group)
        rung = _with_experts(question, _at_target(question, candidate, chosen))
        rows.append((candidate, rung))
        if rung.verdict in ("chosen", "fits"):
            break
    return rows


def _best(question: Question, group: Sequence[Candidate]) -> Candidate:
    """Of the places that hold the rung, the one with the fewest layers on the CPU, then with the fewest devices."""
    if len(group) == 1:
        return group[0]
    context, slots = _target(question), question.settings.max_num_seqs or 1
    laid_out = [(candidate, lay_out(question, candidate, context, slots)) for candidate in group]
    holding = [row for row in laid_out if fits(question, row[0], context, slots)]
    if holding:
        return min(holding, key=lambda row: cpu_layers(row[1]))[0]
    return min(laid_out, key=lambda row: lacking_bytes(question, row[1]))[0]


def _at_target(question: Question, candidate: Candidate, chosen: Rung | None) -> Rung:
    context, slots = _target(question), question.settings.max_num_seqs or 1
    rung, holds = lay_out(question, candidate, context, slots), fits(question, candidate, context, slots)
    if excluded := _excluded(question, candidate, holds):
        return replace(rung, verdict=excluded[0], reason=excluded[1])
    if not holds:
        return replace(rung, verdict="too_large", reason=messages.lacking(rung, question.host))
    if chosen is not None:
        return replace(rung, verdict="fits", reason=messages.fits_too(rung, chosen))
    grown = _grow(question, candidate, context)
    why = messages.as_stored(question.stored, grown) if question.stored else messages.chosen(grown, question.settings)
    return replace(grown, verdict="chosen", reason=why)


def _with_experts(question: Question, rung: Rung) -> Rung:
    """The rung, whose reason says how little quantising saves where bitsandbytes passes fused experts over."""
    quantises = rung.precision in ("int8", "int4") and question.stored is None
    if not question.shape.experts or not quantises or rung.verdict == "unsupported":
        return rung
    load = Load(rung.precision, rung.compute_dtype, rung.max_model_len, rung.max_num_seqs)
    saved = saved_bytes(question.layout, question.shape, load)
    weights = weights_bytes(question.layout, question.shape, load)
    return replace(rung, reason=messages.experts_stay(rung.reason, rung.precision, saved, weights))


def _excluded(question: Question, candidate: Candidate, holds: bool) -> tuple[Verdict, Text] | None:
    if candidate.unsupported:
        return "unsupported", candidate.unsupported
    packed = None in candidate.devices and question.host.cpu_packs_int4
    if candidate.precision == "int4" and not int4_fits_kernels(question.layout, question.shape, packed):
        return "unsupported", messages.ODD_SHAPE
    asked = question.settings.precision
    if asked is not None and candidate.precision != asked:
        stored = question.stored
        return "excluded", messages.not_stored_so(stored, asked) if stored else messages.not_asked(asked, holds)
    if question.only and (candidate.precision, candidate.device_name) != question.only:
        return "excluded", messages.kept(question.only[0])
    for barred in question.barred:
        same = (barred.precision, barred.device) == (candidate.precision, candidate.device_name)
        if asked is None and same and not barred.max_num_seqs:
            return "excluded", barred.why
    return None


def _shorter(question: Question, stage: Sequence[Step], rows: Sequence[Row]) -> tuple[int, Rung] | None:
    """The stage's lowest rung that may be used, where it has the longest context of at least 2048 tokens.

    Returns the row that it replaces, and the rung.
    """
    if question.settings.max_model_len is not None:
        return None
    usable = [place for place, (_, rung) in enumerate(rows) if rung.verdict == "too_large"]
    if not usable:
        return None
    lowest = rows[usable[-1]][0].precision
    lengths = [(_shortened(question, candidate), candidate) for candidate in _places(question, stage, lowest)]
    context, candidate = max(lengths, key=lambda row: row[0])
    if not context:
        return None
    short = lay_out(question, candidate, context, question.settings.max_num_seqs or 1)
    of_kind = [place for place in usable if rows[place][0].precision == lowest]
    same = (place for place in of_kind if len(rows[place][0].devices) == len(candidate.devices))
    reason = messages.shortened(short, _target(question))
    return next(same, of_kind[-1]), _with_experts(question, replace(short, verdict="chosen", reason=reason))


def _shortened(question: Question, candidate: Candidate) -> int:
    """The longest context that it holds up to the one aimed at; 0 where that is below 2048."""
    slots, target = question.settings.max_num_seqs or 1, _target(question)
    least = min(LEAST_CONTEXT, target)
    return _largest(least, target, CONTEXT_STEP, lambda length: fits(question, candidate, length, slots)) or 0


def _places(question: Question, stage: Sequence[Step], precision: Precision) -> list[Candidate]:
    """Every place of a stage that may hold this precision, in order of preference."""
    candidates = (c for step in stage for group in step.groups for c in group if c.precision == precision)
    return [candidate for candidate in candidates if not _excluded(question, candidate, False)]


def _grow(question: Question, candidate: Candidate, context: int) -> Rung:
    """What is left buys more slots, then a longer context; with layers on the CPU, fewer of these instead."""
    settings, slots = question.settings, question.settings.max_num_seqs or 1
    most, longest = question.most_slots, question.shape.context
    if candidate.mixed:
        return lay_out(question, candidate, context, slots)
    if settings.max_num_seqs is None:
        if fewer := question.fewer_slots(candidate.precision, candidate.device_name):
            most, longest = min(most, fewer.max_num_seqs), max(context, min(longest, fewer.max_model_len))
        slots = _largest(1, most, 1, lambda n: fits(question, candidate, context, n)) or 1
    if settings.max_model_len is None and (settings.max_num_seqs is not None or slots == most):
        context = _largest(context, longest, CONTEXT_STEP, lambda n: fits(question, candidate, n, slots)) or context
    return lay_out(question, candidate, context, slots)


def _largest(least: int, most: int, step: int, holds: Callable[[int], bool]) -> int | None:
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


def _refuse(question: Question, rungs: tuple[Rung, ...]) -> Refusal:
    if not rungs:
        return refusals.no_gpu(question.host)
    if refusal := refusals.refusal(question, rungs):
        return refusal
    smallest = _smallest(question)
    for name, relaxed in _relaxed(question.settings):
        slots = MOST_SLOTS if name == "GLM_MAX_NUM_SEQS" else 1
        _, chosen = _choose(replace(question, settings=relaxed, only=None, most_slots=slots))
        if chosen:
            return refusals.nothing_fits(question, rungs, smallest, name, chosen)
    return refusals.nothing_fits(question, rungs, smallest, None, None)


def _relaxed(settings: Settings) -> list[tuple[str, Settings]]:
    """The settings that were made, each taken back."""
    changes = (
        ("GLM_PRECISION", replace(settings, precision=None)),
        ("GLM_MAX_MODEL_LEN", replace(settings, max_model_len=None)),
        ("GLM_MAX_NUM_SEQS", replace(settings, max_num_seqs=None)),
        ("GLM_REQUIRE_GPU", replace(settings, require_gpu=False)),
    )
    return [(name, relaxed) for name, relaxed in changes if relaxed != settings]


def _smallest(question: Question) -> Rung | None:
    """The rung that lacks least, at the shortest context that the settings allow."""
    context = question.settings.max_model_len or min(LEAST_CONTEXT, _target(question))
    slots = question.settings.max_num_seqs or 1
    laid_out = [
        lay_out(question, candidate, context, slots)
        for stage in stages(question)
        for step in stage
        for group in step.groups
        for candidate in group
        if not _excluded(question, candidate, False)
    ]
    return min(laid_out, key=lambda rung: lacking_bytes(question, rung), default=None)
