"""How fast a GPU's memory is: by its clock and width, or else by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping

GB = 1000**3
GB_PER_SECOND: Mapping[str, int] = {
    "RTX 3060": 360,
    "RTX 3060 Ti": 448,
    "RTX 3070": 448,
    "RTX 3070 Ti": 608,
    "RTX 3080": 760,
    "RTX 3080 Ti": 912,
    "RTX 3090": 936,
    "RTX 3090 Ti": 1008,
    "RTX 4060": 272,
    "RTX 4060 Ti": 288,
    "RTX 4070": 504,
    "RTX 4070 SUPER": 504,
    "RTX 4070 Ti": 504,
    "RTX 4070 Ti SUPER": 672,
    "RTX 4080": 717,
    "RTX 4080 SUPER": 736,
    "RTX 4090": 1008,
    "RTX 5070": 672,
    "RTX 5070 Ti": 896,
    "RTX 5080": 960,
    "RTX 5090": 1792,
    "RTX A4000": 448,
    "RTX A5000": 768,
    "RTX A6000": 768,
    "RTX 6000 Ada Generation": 960,
    "T4": 320,
    "V100": 900,
    "A10": 600,
    "A10G": 600,
    "A30": 933,
    "A40": 696,
    "A100 40GB": 1555,
    "A100 80GB PCIe": 1935,
    "A100 SXM4 80GB": 2039,
    "L4": 300,
    "L40": 864,
    "L40S": 864,
    "H100 PCIe": 2039,
    "H100 80GB HBM3": 3352,
    "H100 NVL": 3938,
    "H200": 4800,
}
"""10^9 bytes a second, of NVIDIA's data sheets of each card (for the GeForce cards "Memory Bandwidth", or rate times
width in its table of specifications). A key is the words that the driver's name of the card has, see `by_name`. Laptop
cards have slower memory and are not in the table."""
TRANSFERS_PER_CLOCK = 2
"""NVML's memory clock is the one of DDR, also for GDDR6X, GDDR7 and HBM: RTX 3090 9751 MHz and 384 bits are 936 GB/s,
A100 1215 MHz and 5120 bits 1555 GB/s."""


def by_clock(megahertz: int | None, bits: int | None) -> int | None:
    """Bytes a second; None if the driver does not tell either."""
    if not megahertz or not bits:
        return None
    return megahertz * 1_000_000 * TRANSFERS_PER_CLOCK * bits // 8


def by_name(name: str) -> int | None:
    """Bytes a second of a card by the driver's name, as `NVIDIA GeForce RTX 3090` or `NVIDIA A100-SXM4-80GB`.

    The entry with the most words that are all in the name counts. None for a card that is not in the table.
    """
    words = _words(name)
    if "laptop" in words or "max-q" in name.lower():
        return None
    known = [entry for entry in GB_PER_SECOND if _words(entry) <= words]
    best = max(known, key=lambda entry: len(_words(entry)), default=None)
    return GB_PER_SECOND[best] * GB if best else None


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[\s-]+", name.lower()))
