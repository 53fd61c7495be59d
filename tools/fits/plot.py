"""The plot of what fits: each model's precision, by a card's memory. SVG by hand, no library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from html import escape

from tools.checkpoints.published import SIZES, CardPlan, published, sweep

WIDTH = 860
LEFT, RIGHT, TOP = 178, 24, 78
ROW, BAR = 44, 24
TICKS = (4, 6, 8, 12, 16, 24, 32, 48, 80, 96, 141)
TITLE = "Which precision one card gets, by its memory"
STYLE = """
  :root { color-scheme: light dark; --ink: #1c1b19; --muted: #66625a; --line: #e4e0d8; --none: #f3f1ec;
    --int4: #8fbfc7; --int8: #317f8c; --bf16: #0b6270; --on-int4: #1c1b19; --on-int8: #ffffff; --on-bf16: #ffffff; }
  @media (prefers-color-scheme: dark) { :root { --ink: #e9e7e2; --muted: #a09c93; --line: #2e343a; --none: #20252a;
    --int4: #2f5d67; --int8: #3f8f9c; --bf16: #74c7d3; --on-int4: #e9e7e2; --on-int8: #0b1a1d; --on-bf16: #0b1a1d; } }
  text { font: 13px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
    fill: var(--ink); }
  .title { font-size: 16px; font-weight: 600; } .muted { fill: var(--muted); } .tick { stroke: var(--line); }
  .none { fill: var(--none); } .int4 { fill: var(--int4); } .int8 { fill: var(--int8); } .bf16 { fill: var(--bf16); }
  .on-int4 { fill: var(--on-int4); } .on-int8 { fill: var(--on-int8); } .on-bf16 { fill: var(--on-bf16); }
"""


def plot() -> str:
    """The whole SVG document; dark where the reader's system is."""
    names = list(published())
    height = TOP + ROW * len(names) + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title">',
        f'<title id="title">{escape(TITLE)}</title>',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="0" y="20">{escape(TITLE)}</text>',
        '<text class="muted" x="0" y="42">The highest one that fits; on the left end of each bar its context is '
        "shorter than on the right.</text>",
        *_axis(height),
        *(part for row, name in enumerate(names) for part in _model(row, name)),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _x(gib: float) -> float:
    """Place of a size: a step is a doubling, since cards double too."""
    share = math.log2(gib / SIZES[0]) / math.log2(SIZES[-1] / SIZES[0])
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _axis(height: int) -> Iterator[str]:
    bottom = height - 40
    for gib in TICKS:
        yield f'<line class="tick" x1="{_x(gib)}" x2="{_x(gib)}" y1="{TOP - 14}" y2="{bottom}"/>'
        yield f'<text class="muted" x="{_x(gib)}" y="{bottom + 16}" text-anchor="middle">{gib}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="muted" x="{middle}" y="{height - 4}" text-anchor="middle">memory of the card, GiB</text>'


def _model(row: int, name: str) -> Iterator[str]:
    top = TOP + row * ROW
    base = top + BAR / 2 + 4.5
    yield f'<text x="0" y="{base}">{escape(name.rpartition("/")[2])}</text>'
    for precision, run in itertools.groupby(sweep(name), key=lambda planned: planned.precision):
        yield from _bar(precision, list(run), top, base)


def _bar(precision: str | None, run: list[CardPlan], top: int, base: float) -> Iterator[str]:
    """One precision from its first size to where the next begins."""
    begin, end = _x(run[0].gib), _x(min(run[-1].gib + 1, SIZES[-1]))
    kind = precision or "none"
    label = f"{precision} from {run[0].gib} GiB" if precision else f"nothing up to {run[-1].gib} GiB"
    width = round(end - begin, 1)
    yield (
        f'<rect class="{kind}" x="{begin}" y="{top}" width="{width}" height="{BAR}" rx="3">'
        f"<title>{label}</title></rect>"
    )
    middle, anchor = round((begin + end) / 2, 1), 'text-anchor="middle"'
    if not precision:
        word = "more than one card of this size is needed" if run[-1].gib == SIZES[-1] else "does not fit"
        if width > 90:
            yield f'<text class="muted" x="{middle}" y="{base}" {anchor}>{word}</text>'
    elif width > 36:
        yield f'<text class="on-{kind}" x="{middle}" y="{base}" {anchor}>{precision}</text>'
