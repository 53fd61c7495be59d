"""What each published model gets from one card of every size: each whole GiB from 4 to 141.

    python -m tests.bench.plan_sweep

Prints a line for each range of sizes with the same precision, its shortest and longest context and its slots, and
checks that more memory never gives a lower rung, at the same rung a shorter context, or fewer slots; 1 is the exit
code where it does. The plans are those of `plan --vram`: an idle card of compute capability 8.6, no layers on the CPU.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from tools.checkpoints.published import RUNGS, CardPlan, published, sweep
from tools.fits.sweep import sweep_text


def rank(planned: CardPlan) -> int:
    """The rung's height; nothing is below all."""
    return RUNGS.index(planned.precision) if planned.precision else -1


def breaches(planned: Sequence[CardPlan]) -> list[str]:
    """Where more memory gives less, a line each."""
    lines = []
    for small, large in itertools.pairwise(planned):
        worse = rank(large) < rank(small)
        same = large.precision == small.precision
        if worse or (same and (large.max_model_len < small.max_model_len or large.max_num_seqs < small.max_num_seqs)):
            lines.append(f"{large.gib} GiB gives {_told(large)}, {small.gib} GiB {_told(small)}")
    return lines


def _told(planned: CardPlan) -> str:
    if planned.precision is None:
        return "nothing"
    return f"{planned.precision} with {planned.max_num_seqs} x {planned.max_model_len} tokens"


def main() -> int:
    """Prints the table and what is wrong with it."""
    sys.stdout.write(sweep_text())
    wrong = [f"{name}: {line}" for name in published() for line in breaches(sweep(name))]
    sys.stderr.write("".join(f"more memory gives less: {line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
