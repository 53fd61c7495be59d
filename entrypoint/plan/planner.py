"""Settings, devices, host and checkpoint to a `Plan`, by pure functions: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.contract.limits import MOST_SLOTS
from app.contract.plan import Plan, Precision, Refusal, Rung, gpus_of
from entrypoint.plan import refusals
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.ladder import Candidate, LadderStep, mixed, stages
from entrypoint.plan.origins import origins
from entrypoint.plan.placement import Budget
from entrypoint.plan.verdicts import (
    CONTEXT_STEP,
    TARGET_CONTEXT,
    LadderRow,
    at_target,
    excluded,
    judge,
    judged,
    largest,
    target_context,
)
from entrypoint.reasons.plan import FitsShorter
from entrypoint.settings.settings import Settings, SettingsError

LEAST_CONTEXT = 2048


def make_plan(inputs: PlanInputs) -> Plan:
    """Chooses the highest rung that fits, or says why none does.

    Raises:
        SettingsError: a setting is out of the model's or the engine's range.
    """
    _check_range(inputs)
    if inputs.only and not set(gpus_of(inputs.only[1])) <= {device.uuid for device in inputs.devices}:
        inputs = replace(inputs, only=None)  # a GPU is gone
    rows, chosen = _choose(inputs)
    return Plan(
        model=inputs.model,
        host=inputs.host,
        devices=inputs.devices,
        rungs=tuple(row.rung for row in rows),
        chosen=chosen,
        refusal=None if chosen else _refuse(inputs, rows),
        origins=origins(inputs, chosen, min(TARGET_CONTEXT, inputs.shape.context)),
    )


def _check_range(inputs: PlanInputs) -> None:
    requested, most = inputs.settings.max_model_len, inputs.shape.context
    if requested is not None and requested > most:
        raise SettingsError(
            f"GLM_MAX_MODEL_LEN={requested}: should be at most {most}, the context of {inputs.model.name}"
        )


def _choose(inputs: PlanInputs) -> tuple[tuple[LadderRow, ...], Rung | None]:
    """All rungs in ladder order, stage by stage, and the chosen one."""
    rows: list[LadderRow] = []
    chosen: Rung | None = None
    for stage in stages(inputs):
        if chosen and mixed(stage):
            continue  # of no interest if GPUs alone serve
        stage_rows: list[LadderRow] = []
        for step in stage:
            for row in _rows(inputs, step, chosen):
                stage_rows.append(row)
                chosen = chosen or (row.rung if row.rung.verdict == "chosen" else None)
        if chosen is None and (shorter := _shorter(inputs, stage, stage_rows)):
            position, row = shorter
            stage_rows[position], chosen = row, row.rung
        rows += stage_rows
    return tuple(rows), chosen


def _rows(inputs: PlanInputs, step: LadderStep, chosen: Rung | None) -> list[LadderRow]:
    """A row for each group of places, up to one that may be used."""
    rows: list[LadderRow] = []
    for group in step.groups:
        row = judge(inputs, _best([at_target(inputs, candidate) for candidate in group]), chosen)
        rows.append(row)
        if row.rung.verdict in ("chosen", "fits"):
            break
    return rows


def _best(budgets: Sequence[Budget]) -> Budget:
    """Of the places that hold the rung, the one with the fewest layers on the CPU, then with the fewest devices."""
    if len(budgets) == 1:
        return budgets[0]
    fitting = [budget for budget in budgets if budget.fits()]
    if fitting:
        return min(fitting, key=lambda budget: budget.cpu_layers)
    return min(budgets, key=lambda budget: budget.lacking_bytes)


def _shorter(
    inputs: PlanInputs, stage: Sequence[LadderStep], rows: Sequence[LadderRow]
) -> tuple[int, LadderRow] | None:
    """The stage's lowest rung that may be used, on the devices with the longest context of at least 2048 tokens.

    Returns the position of the row that it replaces, and its own.
    """
    if inputs.settings.max_model_len is not None:
        return None
    usable = [position for position, row in enumerate(rows) if row.rung.verdict == "too_large"]
    if not usable:
        return None
    lowest = rows[usable[-1]].candidate.precision
    lengths = [(_shortened(inputs, candidate), candidate) for candidate in _places(inputs, stage, lowest)]
    context, candidate = max(lengths, key=lambda pair: pair[0])
    if not context:
        return None
    budget = Budget(inputs, candidate, context, inputs.settings.max_num_seqs or 1)
    of_kind = [position for position in usable if rows[position].candidate.precision == lowest]
    same = (position for position in of_kind if len(rows[position].candidate.devices) == len(candidate.devices))
    reason = FitsShorter(
        devices=candidate.names,
        layers=budget.spread,
        need_bytes=budget.need_bytes,
        free_bytes=budget.free_bytes,
        max_model_len=context,
        target_model_len=target_context(inputs),
    )
    return next(same, of_kind[-1]), judged(inputs, budget, "chosen", reason)


def _shortened(inputs: PlanInputs, candidate: Candidate) -> int:
    """The longest context that it holds up to the one aimed at; 0 if that is below 2048."""
    budget, target = at_target(inputs, candidate), target_context(inputs)
    least = min(LEAST_CONTEXT, target)
    return largest(least, target, CONTEXT_STEP, lambda length: replace(budget, max_model_len=length).fits()) or 0


def _places(inputs: PlanInputs, stage: Sequence[LadderStep], precision: Precision) -> list[Candidate]:
    """Every place of a stage that may hold this precision, in order of preference."""
    candidates = (c for step in stage for group in step.groups for c in group if c.precision == precision)
    return [candidate for candidate in candidates if not excluded(inputs, candidate, False)]


def _refuse(inputs: PlanInputs, rows: Sequence[LadderRow]) -> Refusal:
    if not rows:
        return refusals.no_gpu(inputs.host)
    reasons = [row.reason for row in rows]
    if refusal := refusals.format_unsupported(inputs, reasons):
        return refusal
    smallest = _smallest(inputs)
    why = refusals.lack(inputs, reasons, smallest)
    for name, relaxed in _relaxed(inputs.settings):
        slots = MOST_SLOTS if name == "GLM_MAX_NUM_SEQS" else 1
        _, chosen = _choose(replace(inputs, settings=relaxed, only=None, most_slots=slots, spare_memory=False))
        if chosen:
            return refusals.setting_helps(why, name, chosen)
    return refusals.smaller_model(inputs, why, smallest)


def _relaxed(settings: Settings) -> list[tuple[str, Settings]]:
    """The settings that were made, each taken back."""
    changes = (
        ("GLM_PRECISION", replace(settings, precision=None)),
        ("GLM_MAX_MODEL_LEN", replace(settings, max_model_len=None)),
        ("GLM_MAX_NUM_SEQS", replace(settings, max_num_seqs=None)),
        ("GLM_REQUIRE_GPU", replace(settings, require_gpu=False)),
    )
    return [(name, relaxed) for name, relaxed in changes if relaxed != settings]


def _smallest(inputs: PlanInputs) -> Budget | None:
    """The candidate that lacks least, at the shortest context that the settings allow."""
    context = inputs.settings.max_model_len or min(LEAST_CONTEXT, target_context(inputs))
    budgets = [
        Budget(inputs, candidate, context, inputs.settings.max_num_seqs or 1)
        for stage in stages(inputs)
        for step in stage
        for group in step.groups
        for candidate in group
        if not excluded(inputs, candidate, False)
    ]
    return min(budgets, key=lambda budget: budget.lacking_bytes, default=None)
