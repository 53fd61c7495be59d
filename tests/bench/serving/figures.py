"""What a load's streams come to, medians over rounds, and the table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

from tests.bench.serving.client import Stream


@dataclass(frozen=True)
class Figures:
    """One load."""

    tokens_per_second: float
    """New tokens, over the time from the first request to the last token."""
    first_token_seconds: float
    """The median over streams."""
    median_gap_seconds: float
    """Between pieces of a stream."""
    long_gap_seconds: float
    """99 of 100 gaps between pieces of a stream are no longer."""


def figures_of(loads: Sequence[Sequence[Stream]]) -> Figures:
    """Loads of the same kind, one after the other."""
    streams = [stream for load in loads for stream in load]
    seconds = sum(max(one.arrivals[-1] for one in load) - min(one.asked for one in load) for load in loads)
    gaps = sorted(
        later - earlier
        for stream in streams
        for earlier, later in zip(stream.arrivals, stream.arrivals[1:], strict=False)
    )
    return Figures(
        tokens_per_second=sum(stream.tokens for stream in streams) / seconds,
        first_token_seconds=statistics.median(stream.arrivals[0] - stream.asked for stream in streams),
        median_gap_seconds=statistics.median(gaps),
        long_gap_seconds=gaps[len(gaps) * 99 // 100],
    )


def median_of(rounds: Sequence[Figures]) -> Figures:
    """Field by field."""
    return Figures(*(statistics.median(getattr(one, field.name) for one in rounds) for field in fields(Figures)))


def spread(rounds: Sequence[Figures]) -> str:
    """Lowest and highest throughput."""
    rates = [one.tokens_per_second for one in rounds]
    return f"{min(rates):.1f} to {max(rates):.1f}"
