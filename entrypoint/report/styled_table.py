"""Lines of styled words: what a terminal shows in colours and a log as plain text."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from entrypoint.units import GIB, MIB

if TYPE_CHECKING:
    from rich.console import Console

GAP = "  "
PLAIN_MARKS = str.maketrans({"→": ">", "✗": "x"})
"""For encodings that may lack them."""


@dataclass(frozen=True)
class StyledText:
    """Words in one of rich's styles."""

    text: str
    style: str = ""


Line = tuple[StyledText, ...]
BLANK: Line = ()


@dataclass(frozen=True)
class TableRow:
    """Cells below the titles of a table, and what there is to say below them."""

    cells: tuple[StyledText, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """One unit for all numbers of a table, so that they align and compare."""

    name: str
    bytes: int
    digits: int

    def number(self, count: int) -> str:
        """A count of bytes without its unit, which the table's title names."""
        return f"{count / self.bytes:,.{self.digits}f}"


def unit_for(largest_bytes: int) -> Unit:
    """GiB with two digits, or MiB with one if everything is small."""
    return Unit("GiB", GIB, 2) if largest_bytes >= 2 * GIB else Unit("MiB", MIB, 1)


def table(
    titles: Sequence[str], rows: Sequence[TableRow], width: int, left: frozenset[int] = frozenset({0})
) -> list[Line]:
    """Titles and rows, numbers to the right, columns in `left` to the left; a note that rows share stands once.

    It stands below the last of the first rows that have it.
    """
    widths = column_widths(titles, rows)
    lines = [_cells([StyledText(title, "dim") for title in titles], widths, left)]
    printed: set[str] = set()
    for row, following in itertools.zip_longest(rows, rows[1:]):
        lines.append(_cells(row.cells, widths, left))
        if following is None or following.notes != row.notes:
            for note in row.notes:
                lines += wrapped(note, width, indent=4, style="dim") if note not in printed else []
            printed.update(row.notes)
    return lines


def column_widths(titles: Sequence[str], rows: Iterable[TableRow]) -> list[int]:
    """Characters that each column needs."""
    texts = [list(titles), *([cell.text for cell in row.cells] for row in rows)]
    return [max(len(text) for text in column) for column in zip(*texts, strict=True)]


def table_width(titles: Sequence[str], rows: Iterable[TableRow]) -> int:
    """Characters that the table takes, its notes apart."""
    widths = column_widths(titles, rows)
    return sum(widths) + len(GAP) * (len(widths) - 1)


def labelled(label: str, text: str, width: int, style: str = "", indent: int = 10) -> list[Line]:
    """A label in a column of its own, the text beside it, wrapped."""
    parts = textwrap.wrap(text, max(20, width - indent), break_long_words=False, break_on_hyphens=False) or [""]
    first: Line = (StyledText(label.ljust(indent), "dim"), StyledText(parts[0], style))
    return [first, *((StyledText(" " * indent), StyledText(part, style)) for part in parts[1:])]


def wrapped(text: str, width: int, indent: int, style: str = "") -> list[Line]:
    """A paragraph below something."""
    return labelled("", text, width, style, indent)


def plain(lines: Iterable[Line]) -> list[str]:
    """The lines without their styles."""
    return ["".join(span.text for span in line).rstrip() for line in lines]


def show(lines: Iterable[Line], console: Console) -> None:
    """Prints the lines in colours if the console has them."""
    from rich.text import Text

    marks = {} if console.encoding.lower().startswith("utf") else PLAIN_MARKS
    for line in lines:
        text = Text.assemble(*((span.text.translate(marks), span.style) for span in line))
        text.rstrip()
        console.print(text, soft_wrap=True, highlight=False)


def _cells(cells: Sequence[StyledText], widths: Sequence[int], left: frozenset[int]) -> Line:
    spans = []
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = cell.text.ljust(width) if index in left else cell.text.rjust(width)
        spans += [StyledText(text, cell.style), StyledText(GAP)]
    return tuple(spans[:-1])
