"""The tables of `plan --vram` and `plan --all`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from app.contract.plan import Rung, Verdict
from entrypoint.plan.hypothetical import KEPT_SHARE, LEAST_KEPT_BYTES, Answer, nearest_miss
from entrypoint.plan.inputs import Question
from entrypoint.plan.messages import at_once
from entrypoint.report.plan_report import FEWER_TERMS, MARKS, STYLES, headline, lacks, note, numbers, place, placements
from entrypoint.report.styled_table import BLANK, Line, Row, Span, Unit, labelled, table, unit_for
from entrypoint.units import size

CARD_TITLES = ("  cards", "precision", "context", "slots")


def cards_table(answers: Sequence[Answer], questions: Sequence[Question], width: int) -> list[Line]:
    """One line a card: what it would get, or what is lacking; then what was assumed."""
    model = answers[0].plan.model
    about = f"{model.name}: {model.parameters / 1e6:,.1f} M parameters, context up to {model.max_model_len}"
    unit = unit_for(max((rung.need_bytes for answer in answers for rung in answer.plan.rungs), default=0))
    rows = [_card(answer, question, unit) for answer, question in zip(answers, questions, strict=True)]
    titles = (*CARD_TITLES, f"need {unit.name}", f"free {unit.name}", "")
    lines = [*labelled("Model", about, width), BLANK, *table(titles, rows, width, frozenset({0, 1, 6})), BLANK]
    return lines + labelled("Assumed", _assumed(questions[0]), width, "dim")


def every_table(answer: Answer, width: int) -> list[Line]:
    """What was chosen, then for each rung a row for each length."""
    lines = labelled("Cards", answer.asked, width) if answer.asked else []
    lines += headline(answer.plan, width)
    if not answer.every:
        return lines
    unit = unit_for(max(rung.need_bytes for rung in answer.every))
    titles = (f"  {unit.name}", "context", *FEWER_TERMS, "need", "free", "")
    rows = []
    for _, group in itertools.groupby(answer.every, key=lambda rung: (rung.device, rung.precision)):
        for number, rung in enumerate(group):
            name = "" if number else f"{rung.precision} {place(answer.plan.devices, rung.device)}"
            rows.append(_length(name, rung, unit))
    counted = f"{at_once(answer.every[0]).en}; GLM_MAX_NUM_SEQS, where it is set, says for how many"
    lines += [BLANK, *table(titles, rows, width, frozenset({0, len(titles) - 1})), BLANK]
    return lines + labelled("Counted", counted, width, "dim")


def _card(answer: Answer, question: Question, unit: Unit) -> Row:
    devices, asked = answer.plan.devices, answer.asked or ""
    if rung := answer.plan.chosen:
        where = f" {place(devices, rung.device)}" if len(devices) > 1 else ""
        return _row(
            asked, rung, f"{rung.precision}{where}", "chosen", unit, (*placements(answer.plan, rung), *_more(rung))
        )
    if missed := nearest_miss(question, answer.plan.rungs):
        return _row(asked, missed, missed.precision, "too_large", unit, _more(missed))
    refusal = answer.plan.refusal
    blanks = [Span("-", "dim")] * (len(CARD_TITLES) + 1)
    cells = (Span(f"{MARKS['unsupported']} {asked}", STYLES["unsupported"]), *blanks, Span("unsupported", "red"))
    return Row(cells, (refusal.why.en,) if refusal else ())


def _more(rung: Rung) -> tuple[str, ...]:
    """What a reason says beyond why and numbers: that quantising saves little, for one."""
    further = rung.reason.en.partition("; ")[2]
    return (further,) if further else ()


def _row(asked: str, rung: Rung, what: str, verdict: Verdict, unit: Unit, notes: tuple[str, ...]) -> Row:
    style = STYLES[verdict] if verdict == "too_large" else ""
    cells = (
        Span(f"{MARKS['too_large'] if verdict == 'too_large' else ' '} {asked}", style or "bold"),
        Span(what, style),
        Span(str(rung.max_model_len), style),
        Span(str(rung.max_num_seqs), style),
        Span(unit.number(rung.need_bytes), style),
        Span(unit.number(rung.free_bytes), style),
        Span(lacks(rung, unit) if verdict == "too_large" else "", style),
    )
    return Row(cells, notes)


def _length(name: str, rung: Rung, unit: Unit) -> Row:
    style = STYLES.get(rung.verdict, "") if rung.verdict != "chosen" else ""
    verdict = "fits" if rung.verdict == "chosen" else lacks(rung, unit)
    cells = (
        Span(f"  {name}", "bold"),
        Span(str(rung.max_model_len)),
        *(Span(number, "dim") for number in numbers(rung, FEWER_TERMS, unit)),
        Span(unit.number(rung.need_bytes), style),
        Span(unit.number(rung.free_bytes)),
        Span(verdict, style or "green"),
    )
    notes = () if rung.verdict in ("chosen", "fits") or not note(rung) else (note(rung),)
    return Row(cells, notes)


def _assumed(question: Question) -> str:
    capability = ".".join(map(str, question.devices[0].compute_capability or ()))
    torch = question.torch.version if question.torch else "unknown"
    cpu = (
        f"this machine's, {size(question.host.available_bytes)}"
        if question.cpu
        else "not offered, and the host has the RAM that loading takes"
    )
    return (
        f"idle cards of compute capability {capability}, of whose memory the driver keeps {size(LEAST_KEPT_BYTES)}, or "
        f"1/{KEPT_SHARE} where that is more; torch {torch}; the CPU is {cpu}. Memory is given as nvidia-smi tells it: "
        "some cards sold with 24 GB show 22.5 GiB."
    )
