"""Writes the README's table of what fits which memory, and its plot, from the same code as `plan --vram`.

python -m tools.fits.table            writes both
python -m tools.fits.table --check    1 where either is not what the plan says now
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from entrypoint.plan.hypothetical import Cards, parse_cards, what_if
from entrypoint.plan.planner import make_plan
from tools.checkpoints.published import GIB, published, published_question
from tools.fits.plot import plot
from tools.fits.sweep import sweep_text

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PLOT = ROOT / "docs" / "fits.svg"
SWEEP = ROOT / "docs" / "plan-sweep.txt"
CARDS = "8GiB,12GiB,16GiB,24GiB,32GiB,48GiB,80GiB,96GiB,141GiB,2x24GiB,2x80GiB"
HOPPER_FROM_BYTES = 80 * GIB
BEGIN = "<!-- written by python -m tools.fits.table: do not edit by hand -->\n"
END = "<!-- end of what python -m tools.fits.table writes -->\n"


def table() -> str:
    """A Markdown table: a row for each card or pair, a column for each model."""
    names = [name.rpartition("/")[2] for name in published()]
    rows = [["memory", *names], ["---"] * (1 + len(names))]
    rows += [[_label(cards), *(_cell(name, cards) for name in published())] for cards in parse_cards(CARDS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def capability(cards: Cards) -> tuple[int, int]:
    """That of the usual card of this size: consumer cards of 2020, from 80 GiB on Hopper."""
    return (9, 0) if cards.total_bytes >= HOPPER_FROM_BYTES else (8, 6)


def tokens(count: int) -> str:
    """`4.2K`, `128K`: rounded down."""
    tenths = count * 10 // 1024
    return f"{tenths // 10}K" if tenths >= 100 or tenths % 10 == 0 else f"{tenths / 10}K"


def with_table(readme: str) -> str:
    """The README with this table between the marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _label(cards: Cards) -> str:
    size = cards.asked.rpartition("x")[2].replace("GiB", " GiB")
    return f"{cards.count} × {size}" if cards.count > 1 else size


def _cell(name: str, cards: Cards) -> str:
    chosen = make_plan(what_if(published_question(name), cards, capability(cards))).chosen
    if chosen is None:
        return "–"
    slots = f" × {chosen.max_num_seqs}" if chosen.max_num_seqs > 1 else ""
    both = " on both" if "+" in chosen.device else ""
    return f"{chosen.precision}, {tokens(chosen.max_model_len)}{slots}{both}"


def main(arguments: list[str]) -> int:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where something would change")
    options = parser.parse_args(arguments)
    stale = 0
    wanted = {README: with_table(README.read_text(encoding="utf-8")), PLOT: plot(), SWEEP: sweep_text()}
    for path, text in wanted.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = 1
        if options.check:
            print(f"{path.name} is not what the plan says now: run python -m tools.fits.table")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return stale if options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
