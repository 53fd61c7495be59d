"""Bytes for people."""

from __future__ import annotations

GIB = 1024**3
MIB = 1024**2


def rate(per_second: float) -> str:
    """A number of something a second for people: whole, below ten two digits."""
    return f"{per_second:.0f}" if per_second >= 9.95 else f"{per_second:.2g}"


def size(count: int) -> str:
    """Bytes for people: GiB with two digits, below that whole MiB, below ten of them one digit."""
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    return f"{count / MIB:.0f} MiB" if count >= 10 * MIB else f"{count / MIB:.1f} MiB"
