"""`plan`: what fits, here or on cards that are not here; writes nothing.

    python -m entrypoint plan                         this machine
    python -m entrypoint plan --vram 8GiB,2x24GiB     an idle card of 8 GiB; two of 24 GiB
    python -m entrypoint plan --all                   every rung at every length

With `--json` stdout holds one JSON document and nothing else, logs go to stderr. Keys are added, never renamed:

- without other options a `Plan` (app/contract/plan.py): `model`, `host`, `devices`, `rungs`, `chosen`, `refusal`,
  `origins`; exactly one of `chosen` and `refusal` is not null; sizes are whole bytes
- with `--all` one answer: `asked` (null), `plan` (a `Plan`), `every` (its rungs at each `max_model_len`)
- with `--vram` `answers`, one for each value in the order they were given: `asked` is the value

Exit code 0, or 3 if nothing fits (with `--vram`: on none of the cards).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from app.contract import exits
from app.contract.codec import to_json
from entrypoint.measure import KnownSpeeds, fitting_inputs, measure, read_model, start_read_measurement
from entrypoint.plan.hypothetical import Cards, HypotheticalPlan, every_rung, parse_capability, parse_cards, what_if
from entrypoint.plan.inputs import PlanInputs
from entrypoint.plan.planner import make_plan
from entrypoint.report.hypothetical_report import cards_table, every_table
from entrypoint.report.plan_report import report
from entrypoint.report.styled_table import BLANK, show
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.ledger import read_ledger
from entrypoint.state.state_dir import StateDir, read_usage

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 118


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of tables")
    parser.add_argument("--all", action="store_true", help="every rung at every length, from 2048 tokens on")
    parser.add_argument("--vram", metavar="SIZES", help="plan for GPUs of these sizes, such as 8GiB,24GiB or 2x24GiB")
    parser.add_argument("--compute-capability", metavar="X.Y", help="compute capability of these GPUs (default 8.6)")
    parser.add_argument("--allow-cpu", action="store_true", help="with --vram: layers may lie on this machine's CPU")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints the plan or plans. Raises SettingsError, CheckpointError or HubRefused."""
    if options.vram is None and (options.compute_capability is not None or options.allow_cpu):
        raise SettingsError("--compute-capability and --allow-cpu need --vram")
    cards = parse_cards(options.vram) if options.vram is not None else ()
    capability = parse_capability(options.compute_capability)
    inputs = _inputs(settings, here=not cards)
    requests: list[tuple[Cards | None, PlanInputs]] = [
        (card, what_if(inputs, card, capability, options.allow_cpu)) for card in cards
    ] or [(None, inputs)]
    answers = [_answer(card, inputs, options.all) for card, inputs in requests]
    try:
        if options.json:
            json.dump(_document(answers, bool(cards), options.all), sys.stdout, ensure_ascii=False, indent=1)
            sys.stdout.write("\n")
        else:
            _print(answers, [inputs for _, inputs in requests], bool(cards), options.all)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe; Python would complain again at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.OK if any(answer.plan.chosen for answer in answers) else exits.REFUSED_PLAN


def _inputs(settings: Settings, here: bool) -> PlanInputs:
    held = read_usage(settings.state_dir)
    if here:
        speeds = KnownSpeeds(start_read_measurement(), read_ledger(StateDir(settings.state_dir).ledger))
        return fitting_inputs(settings, held, speeds)
    return measure(settings, *read_model(settings), held)


def _answer(card: Cards | None, inputs: PlanInputs, every: bool) -> HypotheticalPlan:
    return HypotheticalPlan(card.text if card else None, make_plan(inputs), every_rung(inputs) if every else ())


def _document(answers: list[HypotheticalPlan], what_if: bool, every: bool) -> object:
    if what_if:
        return {"answers": to_json(answers)}
    return to_json(answers[0] if every else answers[0].plan)


def _print(answers: list[HypotheticalPlan], inputs_of_answers: list[PlanInputs], what_if: bool, every: bool) -> None:
    console = _console()
    lines = cards_table(answers, inputs_of_answers, console.width) if what_if else []
    if every:
        for answer in answers:
            lines += [*([BLANK] if lines else []), *every_table(answer, console.width)]
    show(lines if what_if or every else report(answers[0].plan, console.width), console)


def _console() -> Console:
    from rich.console import Console

    if sys.stdout.isatty():
        return Console()
    # A pipe's encoding may lack arrows; a question mark is better than no plan.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=PLAIN_WIDTH, color_system=None)
