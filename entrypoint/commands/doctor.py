"""`doctor`: everything that a deployment needs, checked; what is wrong comes with its remedy. Writes nothing.

    python -m entrypoint doctor
    docker compose run --rm glm doctor

`--json` prints `{"verdict": …, "checks": [{"name", "verdict", "finding", "remedy"}, …]}` on stdout; keys are added,
never renamed. Exit code 0 where everything passes, 1 with warnings, 2 where something fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from app.contract.codec import to_json
from entrypoint.doctor.check import Check, Verdict, examine
from entrypoint.settings.settings import Settings

EXITS: dict[Verdict, int] = {"pass": 0, "warn": 1, "fail": 2}
STYLES: dict[Verdict, str] = {"pass": "green", "warn": "yellow", "fail": "bold red"}
MARKS: dict[Verdict, str] = {"pass": "✓", "warn": "!", "fail": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of a table")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs every check, prints the findings and returns the exit code."""
    from entrypoint.doctor.machine_checks import MACHINE
    from entrypoint.doctor.model_checks import MODEL

    checks = examine(settings, (*MACHINE, *MODEL))
    worst = max((check.verdict for check in checks), key=lambda verdict: EXITS[verdict])
    if options.json:
        json.dump({"verdict": worst, "checks": to_json(checks)}, sys.stdout, ensure_ascii=False, indent=1)
        sys.stdout.write("\n")
    elif sys.stdout.isatty():
        _print_table(checks)
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a pipe may have an encoding without ✓
        sys.stdout.write("\n".join(lines(checks)) + "\n")
    return EXITS[worst]


def lines(checks: Sequence[Check]) -> list[str]:
    """A line a check, its remedy below; the summary last."""
    width = max(len(check.name) for check in checks)
    said = []
    for check in checks:
        said.append(f"{check.verdict}  {check.name:{width}}  {check.finding.en}")
        if check.remedy:
            said.append(f"{'':{width + 6}}  -> {check.remedy.en}")
    return [*said, summary(checks)]


def summary(checks: Sequence[Check]) -> str:
    """How many checks there were, and how they ended."""
    fails = sum(check.verdict == "fail" for check in checks)
    warns = sum(check.verdict == "warn" for check in checks)
    if not fails and not warns:
        return f"all checks pass: {len(checks)}"
    return f"{len(checks)} checks: {fails} failed, {warns} with a warning"


def _print_table(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Styled

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for check in checks:
        style = STYLES[check.verdict]
        finding = Styled(check.finding.en)
        if check.remedy:
            finding.append(f"\n→ {check.remedy.en}", style="bold")
        table.add_row(Styled(MARKS[check.verdict], style), Styled(check.name, style), finding)
    console = Console()
    console.print(table)
    console.print(summary(checks), style="dim", highlight=False)
