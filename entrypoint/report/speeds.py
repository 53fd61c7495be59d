"""How fast a rung answers, in words."""

from __future__ import annotations

from app.contract.plan import Rung, SpeedEstimate
from entrypoint.units import rate


def speeds(rung: Rung) -> tuple[str, ...]:
    """What one request alone reached on this machine, and what to expect of it, as far as they are known."""
    reached, estimate = rung.reached_tokens_per_second, rung.speed
    told = [f"reached {rate(reached)} tokens a second here for one request"] if reached else []
    if estimate:
        about = speed_range(estimate, " to ")
        told.append(f"about {about} tokens a second for one request, estimated from the memory's speed")
    return tuple(told)


def speed_range(estimate: SpeedEstimate, between: str) -> str:
    """`8.1 to 12`; one number if both are the same."""
    return between.join(dict.fromkeys((rate(estimate.low_tokens_per_second), rate(estimate.high_tokens_per_second))))


def memory_speed(bytes_per_second: int) -> str:
    """As memory is sold: in 10^9 bytes."""
    return f"{rate(bytes_per_second / 1e9)} GB/s"
