"""What to expect of one request alone: each new token reads the weights once, at the speed of their memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from app.contract.plan import Precision, SpeedEstimate
from app.layouts.layout import Layout
from app.layouts.shape import Parameter, Shape
from app.layouts.skeleton import skeleton
from entrypoint.plan.footprint import LayerSpan, Load, parameter_bytes


@dataclass(frozen=True)
class ReachedShare:
    """How much of the memory's speed decoding reaches, from the least to the most that was measured."""

    low: float
    high: float


CPU_SHARES: Mapping[Precision, ReachedShare] = {
    "fp32": ReachedShare(0.5, 0.9),
    "bf16": ReachedShare(0.5, 0.9),
    "int8": ReachedShare(0.25, 0.6),
    "int4": ReachedShare(0.2, 0.5),
}
"""Of what the cores read together. `python -m tests.bench.serving` prints the share at one stream."""
GPU_SHARE = ReachedShare(0.5, 0.8)
"""Of what the card's memory delivers at most, at every precision. `python -m tests.bench.gpu_serving` measures it."""
LEAST_READ_SECONDS = 0.002
"""If the weights are read in less time, as those of the demo model, other work sets the pace."""


@dataclass(frozen=True)
class ReadPart:
    """What a token reads on one device."""

    bytes: int
    memory_bytes_per_second: int
    share: ReachedShare


def share_of(precision: Precision, on_cpu: bool) -> ReachedShare | None:
    """None for what is not computed there."""
    return CPU_SHARES.get(precision) if on_cpu else GPU_SHARE


def speed_estimate(parts: Iterable[ReadPart]) -> SpeedEstimate | None:
    """A range of tokens a second; None if the weights are so small that their reading does not decide it.

    Devices work one after the other, so their times add up. The cache of a short context is little beside the weights
    and is left out.
    """
    parts = tuple(parts)
    slowest = fastest = full_speed = 0.0
    for part in parts:
        seconds = part.bytes / part.memory_bytes_per_second
        full_speed += seconds
        slowest += seconds / part.share.low
        fastest += seconds / part.share.high
    if full_speed < LEAST_READ_SECONDS:
        return None
    read_bytes = sum(part.bytes for part in parts)
    return SpeedEstimate(
        low_tokens_per_second=1 / slowest,
        high_tokens_per_second=1 / fastest,
        read_bytes=read_bytes,
        memory_bytes_per_second=int(read_bytes / full_speed),
    )


def token_bytes(layout: Layout, shape: Shape, load: Load, span: LayerSpan) -> int:
    """What one token reads of the weights of these layers; of the last ones with norm and head.

    Of the embedding it reads one row, which is not counted, unless the head is the same matrix. Of experts it reads
    those that the router chooses.
    """
    sums = _sums(layout, shape, replace(load, max_model_len=1, max_num_seqs=1))
    last = span.first + span.layers == shape.layers
    return sums[span.first + span.layers + last] - sums[span.first]


@functools.lru_cache(maxsize=64)
def _sums(layout: Layout, shape: Shape, load: Load) -> tuple[int, ...]:
    """Running sums of bytes: nothing, with each layer, with norm and head."""
    blocks = [0] * (shape.layers + 1)
    for parameter in skeleton(layout, shape):
        name = parameter.name.split(".")
        if name[1] == "layers":
            blocks[int(name[2])] += _read_bytes(shape, parameter, load)
        elif name[1] != "embed_tokens" or shape.tied:
            blocks[shape.layers] += _read_bytes(shape, parameter, load)
    return (0, *itertools.accumulate(blocks))


def _read_bytes(shape: Shape, parameter: Parameter, load: Load) -> int:
    size = parameter_bytes(parameter, load)
    if shape.experts and parameter.projections:
        return size * shape.experts.per_token // shape.experts.count
    return size
