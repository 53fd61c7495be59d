"""The tables of `plan --vram` and `plan --all`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from app.contract.plan import Rung, Verdict
from entrypoint.messages.phrases import at_once
from entrypoint.plan.hypothetical import KEPT_SHARE, LEAST_KEPT_BYTES, HypotheticalPlan, nearest_miss
from entrypoint.plan.inputs import PlanInputs
from entrypoint.report.plan_report import (
    FEWER_TERMS,
    MARKS,
    STYLES,
    headline,
    lacks,
    note,
    numbers,
    place,
    placements,
    remarks,
)
from entrypoint.report.styled_table import BLANK, Line, StyledText, TableRow, Unit, labelled, table, unit_for
from entrypoint.units import size

CARD_TITLES = ("  cards", "precision", "context", "slots")


def cards_table(answers: Sequence[HypotheticalPlan], inputs_of_answers: Sequence[PlanInputs], width: int) -> list[Line]:
    """One line a card: what it would get, or what is lacking; then what was assumed."""
    model = answers[0].plan.model
    about = f"{model.name}: {model.parameters / 1e6:,.1f} M parameters, context up to {model.max_model_len}"
    unit = unit_for(max((rung.need_bytes for answer in answers for rung in answer.plan.rungs), default=0))
    rows = [_card(answer, inputs, unit) for answer, inputs in zip(answers, inputs_of_answers, strict=True)]
    titles = (*CARD_TITLES, f"need {unit.name}", f"free {unit.name}", "")
    lines = [*labelled("Model", about, width), BLANK, *table(titles, rows, width, frozenset({0, 1, 6})), BLANK]
    return lines + labelled("Assumed", _assumed(inputs_of_answers[0]), width, "dim")


def every_table(answer: HypotheticalPlan, width: int) -> list[Line]:
    """What was chosen, then for each rung a row for each length."""
    lines = labelled("Cards", answer.asked, width) if answer.asked else []
    lines += headline(answer.plan, width)
    if not answer.every:
        return lines
    unit = unit_for(max(rung.need_bytes for rung in answer.every))
    titles = (f"  {unit.name}", "context", *FEWER_TERMS, "need", "free", "")
    rows = []
    for _, group in itertools.groupby(answer.every, key=lambda rung: (rung.devices, rung.precision)):
        for number, rung in enumerate(group):
            name = "" if number else f"{rung.precision} {place(answer.plan.devices, rung.devices)}"
            rows.append(_length(name, rung, unit))
    counted = f"{at_once(answer.every[0].max_num_seqs).en}; GLM_MAX_NUM_SEQS changes this"
    lines += [BLANK, *table(titles, rows, width, frozenset({0, len(titles) - 1})), BLANK]
    return lines + labelled("Counted", counted, width, "dim")


def _card(answer: HypotheticalPlan, inputs: PlanInputs, unit: Unit) -> TableRow:
    devices, cards = answer.plan.devices, answer.asked or ""
    if rung := answer.plan.chosen:
        where = f" {place(devices, rung.devices)}" if len(devices) > 1 else ""
        return _row(
            cards, rung, f"{rung.precision}{where}", "chosen", unit, (*placements(answer.plan, rung), *remarks(rung))
        )
    if missed := nearest_miss(inputs, answer.plan.rungs):
        return _row(cards, missed, missed.precision, "too_large", unit, remarks(missed))
    refusal = answer.plan.refusal
    blanks = [StyledText("-", "dim")] * (len(CARD_TITLES) + 1)
    cells = (
        StyledText(f"{MARKS['unsupported']} {cards}", STYLES["unsupported"]),
        *blanks,
        StyledText("unsupported", "red"),
    )
    return TableRow(cells, (refusal.why.en,) if refusal else ())


def _row(cards: str, rung: Rung, what: str, verdict: Verdict, unit: Unit, notes: tuple[str, ...]) -> TableRow:
    style = STYLES[verdict] if verdict == "too_large" else ""
    cells = (
        StyledText(f"{MARKS['too_large'] if verdict == 'too_large' else ' '} {cards}", style or "bold"),
        StyledText(what, style),
        StyledText(str(rung.max_model_len), style),
        StyledText(str(rung.max_num_seqs), style),
        StyledText(unit.number(rung.need_bytes), style),
        StyledText(unit.number(rung.free_bytes), style),
        StyledText(lacks(rung, unit) if verdict == "too_large" else "", style),
    )
    return TableRow(cells, notes)


def _length(name: str, rung: Rung, unit: Unit) -> TableRow:
    style = STYLES.get(rung.verdict, "") if rung.verdict != "chosen" else ""
    verdict = "fits" if rung.verdict == "chosen" else lacks(rung, unit)
    cells = (
        StyledText(f"  {name}", "bold"),
        StyledText(str(rung.max_model_len)),
        *(StyledText(number, "dim") for number in numbers(rung, FEWER_TERMS, unit)),
        StyledText(unit.number(rung.need_bytes), style),
        StyledText(unit.number(rung.free_bytes)),
        StyledText(verdict, style or "green"),
    )
    notes = () if rung.verdict in ("chosen", "fits") or not note(rung) else (note(rung),)
    return TableRow(cells, notes)


def _assumed(inputs: PlanInputs) -> str:
    capability = ".".join(map(str, inputs.devices[0].compute_capability or ()))
    torch = inputs.torch.version if inputs.torch else "unknown"
    cpu = (
        f"this machine's CPU, with {size(inputs.host.available_bytes)} of RAM"
        if inputs.cpu
        else "no layers on the CPU, and enough RAM to load the model"
    )
    return (
        f"idle GPUs of compute capability {capability}; the driver reserves {size(LEAST_KEPT_BYTES)} of each, or "
        f"1/{KEPT_SHARE} if that is more; torch {torch}; {cpu}. Memory is as nvidia-smi shows it: some cards sold as "
        "24 GB have 22.5 GiB."
    )
