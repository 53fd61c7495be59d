"""What each published model gets from one card of every size, as a table of plain text with ranges merged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tools.checkpoints.published import CardPlan, published, sweep


def sweep_text() -> str:
    """The whole table, a line for each range of sizes with the same precision and slots."""
    lines = [f"{'model':24}{'card, GiB':>9}  {'precision':11}{'slots':>5}  context, tokens"]
    lines += [line for name in published() for line in _model(name, sweep(name))]
    return "".join(f"{line}\n" for line in lines)


def _model(name: str, planned: Sequence[CardPlan]) -> Iterator[str]:
    for number, (key, run) in enumerate(itertools.groupby(planned, key=lambda one: (one.precision, one.max_num_seqs))):
        sizes = list(run)
        span = str(sizes[0].gib) if len(sizes) == 1 else f"{sizes[0].gib}-{sizes[-1].gib}"
        precision, slots = key
        columns = (precision, str(slots), _lengths(sizes)) if precision else ("-", "-", "-")
        yield f"{'' if number else name:24}{span:>9}  {columns[0]:11}{columns[1]:>5}  {columns[2]}"


def _lengths(sizes: Sequence[CardPlan]) -> str:
    """The shortest and the longest context, and from where on that is had."""
    first, last = sizes[0].max_model_len, sizes[-1].max_model_len
    if first == last:
        return str(first)
    full = next(one.gib for one in sizes if one.max_model_len == last)
    return f"{first} to {last}" + (f" (from {full} GiB)" if full != sizes[-1].gib else "")
