"""`doctor`: checks everything that a deployment needs and prints a remedy for each problem. Writes nothing.

    python -m entrypoint doctor
    docker compose run --rm glm doctor

`--json` prints `{"verdict": …, "checks": [{"name", "verdict", "finding", "remedy"}, …]}` on stdout; a finding and a
remedy have `en`, `zh`, `code` and `values`. Keys are added, never renamed. The exit code is 0 if all checks pass, 1 if
there are warnings, 2 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from app.contract.codec import to_json
from entrypoint.doctor.check import Check, Verdict, examine
from entrypoint.settings.settings import Settings

VERDICT_EXIT_CODES: dict[Verdict, int] = {"pass": 0, "warn": 1, "fail": 2}
VERDICT_STYLES: dict[Verdict, str] = {"pass": "green", "warn": "yellow", "fail": "bold red"}
VERDICT_MARKS: dict[Verdict, str] = {"pass": "✓", "warn": "!", "fail": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of a table")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs every check, prints the findings and returns the exit code."""
    from entrypoint.doctor.machine_checks import MACHINE_GROUPS
    from entrypoint.doctor.model_checks import MODEL_GROUPS

    checks = examine(settings, (*MACHINE_GROUPS, *MODEL_GROUPS))
    worst = max((check.verdict for check in checks), key=lambda verdict: VERDICT_EXIT_CODES[verdict])
    if options.json:
        json.dump({"verdict": worst, "checks": to_json(checks)}, sys.stdout, ensure_ascii=False, indent=1)
        sys.stdout.write("\n")
    elif sys.stdout.isatty():
        _print_table(checks)
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a pipe may have an encoding without ✓
        sys.stdout.write("\n".join(lines(checks)) + "\n")
    return VERDICT_EXIT_CODES[worst]


def lines(checks: Sequence[Check]) -> list[str]:
    """One line for each check with its remedy below, then the summary."""
    width = max(len(check.name) for check in checks)
    output = []
    for check in checks:
        output.append(f"{check.verdict}  {check.name:{width}}  {check.finding.en}")
        if check.remedy:
            output.append(f"{'':{width + 6}}  -> {check.remedy.en}")
    return [*output, summary(checks)]


def summary(checks: Sequence[Check]) -> str:
    """How many checks ran, failed and warned."""
    fails = sum(check.verdict == "fail" for check in checks)
    warns = sum(check.verdict == "warn" for check in checks)
    if not fails and not warns:
        return f"all {len(checks)} checks passed"
    return f"{len(checks)} checks: {fails} failed, {warns} warned"


def _print_table(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Styled

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for check in checks:
        style = VERDICT_STYLES[check.verdict]
        finding = Styled(check.finding.en)
        if check.remedy:
            finding.append(f"\n→ {check.remedy.en}", style="bold")
        table.add_row(Styled(VERDICT_MARKS[check.verdict], style), Styled(check.name, style), finding)
    console = Console()
    console.print(table)
    console.print(summary(checks), style="dim", highlight=False)
