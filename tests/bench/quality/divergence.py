"""How far a model's next-token distributions are from those of the same model in another form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Divergence:
    """Over all positions that were compared."""

    positions: int
    mean_kl: float
    """KL(reference || other) in nats: what is lost by taking the other's probabilities for the reference's."""
    p99_kl: float
    """99 of 100 positions are no farther."""
    same_top: float
    """Share of positions at which both find the same token likeliest."""


def divergence(reference: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> Divergence:
    """Compares logits [positions, vocabulary] pair by pair. Raises ValueError if they are of other shapes or none."""
    pairs = list(zip(reference, other, strict=True))
    if not pairs or any(ours.shape != theirs.shape for ours, theirs in pairs):
        raise ValueError("logits of the same positions are needed")
    kl = torch.cat([_kl(ours, theirs) for ours, theirs in pairs])
    same = torch.cat([ours.argmax(-1) == theirs.argmax(-1) for ours, theirs in pairs])
    return Divergence(
        positions=len(kl),
        mean_kl=float(kl.mean()),
        p99_kl=float(kl.sort().values[len(kl) * 99 // 100]),
        same_top=float(same.double().mean()),
    )


def _kl(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of each position, in fp64: differences of small numbers are summed over the whole vocabulary."""
    ours, theirs = (torch.log_softmax(logits.double(), -1) for logits in (reference, other))
    return torch.sum(ours.exp() * (ours - theirs), -1)
