"""How fast a rung answers, in words."""

from __future__ import annotations

from app.contract.plan import Rung, SpeedEstimate
from entrypoint.units import rate


def speed(rung: Rung) -> str:
    """What one request alone reached on this machine, or else what to expect of it; empty if neither is known."""
    if reached := rung.reached_tokens_per_second:
        return f"reached {rate(reached)} tokens a second here for one request"
    if rung.speed:
        about = speed_range(rung.speed, " to ")
        return f"about {about} tokens a second for one request, estimated from the memory's speed"
    return ""


def speed_range(estimate: SpeedEstimate, between: str) -> str:
    """`8.1 to 12`; one number if both are the same."""
    return between.join(dict.fromkeys((rate(estimate.low_tokens_per_second), rate(estimate.high_tokens_per_second))))


def memory_speed(bytes_per_second: int) -> str:
    """As memory is sold: in 10^9 bytes."""
    return f"{rate(bytes_per_second / 1e9)} GB/s"
