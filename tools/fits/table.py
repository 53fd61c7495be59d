"""Writes the tables of what fits which memory, the plot and the sweep, from the same code as `plan --vram`.

python -m tools.fits.table            write all of them
python -m tools.fits.table --check    exit 1 if one of them is not what the plan says now
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from entrypoint.plan.hypothetical import Cards, parse_cards, what_if
from entrypoint.plan.planner import make_plan
from tools.checkpoints.published import GIB, published, published_inputs
from tools.fits.plot import plot
from tools.fits.sweep import sweep_text

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "what-fits.md"
PLOT = ROOT / "docs" / "fits.svg"
SWEEP = ROOT / "docs" / "plan-sweep.txt"
CARDS = "8GiB,12GiB,16GiB,24GiB,32GiB,48GiB,80GiB,96GiB,141GiB,2x24GiB,2x80GiB"
README_CARDS = "8GiB,12GiB,16GiB,24GiB,48GiB,80GiB"
README_MODELS = ("zai-org/chatglm3-6b", "zai-org/GLM-4-9B-0414", "zai-org/GLM-4-32B-0414", "zai-org/GLM-4.7-Flash")
HOPPER_FROM_BYTES = 80 * GIB
BEGIN = "<!-- written by python -m tools.fits.table: do not edit by hand -->\n"
END = "<!-- end of what python -m tools.fits.table writes -->\n"


def page_table() -> str:
    """Every size and model."""
    return table(CARDS, tuple(published()))


def readme_table() -> str:
    """Common cards, and one model of each size."""
    return table(README_CARDS, README_MODELS)


def table(sizes: str, models: Sequence[str]) -> str:
    """A Markdown table: a row for each card or pair of `sizes`, a column for each model."""
    rows = [["memory", *(name.rpartition("/")[2] for name in models)], ["---"] * (1 + len(models))]
    rows += [[_label(cards), *(_cell(name, cards) for name in models)] for cards in parse_cards(sizes)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def capability(cards: Cards) -> tuple[int, int]:
    """That of a typical card of this size: consumer cards of 2020, from 80 GiB on Hopper."""
    return (9, 0) if cards.total_bytes >= HOPPER_FROM_BYTES else (8, 6)


def tokens(count: int) -> str:
    """`4.2K`, `128K`: rounded down."""
    tenths = count * 10 // 1024
    return f"{tenths // 10}K" if tenths >= 100 or tenths % 10 == 0 else f"{tenths / 10}K"


def with_table(document: str, markdown: str) -> str:
    """The document with this table between the marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{markdown}{END}{after}"


def outputs() -> dict[Path, str]:
    """What each file should hold now."""
    tables = {README: readme_table(), PAGE: page_table()}
    pages = {path: with_table(path.read_text(encoding="utf-8"), markdown) for path, markdown in tables.items()}
    return {**pages, PLOT: plot(), SWEEP: sweep_text()}


def _label(cards: Cards) -> str:
    size = cards.text.rpartition("x")[2].replace("GiB", " GiB")
    return f"{cards.count} × {size}" if cards.count > 1 else size


def _cell(name: str, cards: Cards) -> str:
    chosen = make_plan(what_if(published_inputs(name), cards, capability(cards))).chosen
    if chosen is None:
        return "–"
    slots = f" × {chosen.max_num_seqs}" if chosen.max_num_seqs > 1 else ""
    both = " on both" if len(chosen.devices) > 1 else ""
    return f"{chosen.precision}, {tokens(chosen.max_model_len)}{slots}{both}"


def main(arguments: list[str]) -> int:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    options = parser.parse_args(arguments)
    stale = 0
    for path, text in outputs().items():
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
