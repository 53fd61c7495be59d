"""The kind of processor, and from how many rows on another form of a product is faster there.

Each number is where two forms meet in `python -m tests.bench.cpu_products` (two cores; 4096 x 4096 and 1536 x 1024).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

CpuKind = Literal["bf16", "avx512", "other"]


@dataclass(frozen=True)
class FormChanges:
    """The least number of rows for which a form is taken."""

    widen_bf16: int | None
    """Slices of a bf16 weight are widened to fp32; None where bf16 is computed natively."""
    onednn_bf16: bool
    """Whether torch gives bf16 products to oneDNN, which keeps code for each number of rows."""
    unpack_int4: int
    """Slices of an int4 weight are unpacked; with fewer rows its own kernel is faster."""


FORM_CHANGES: Mapping[CpuKind, FormChanges] = {
    # Of this kind int4 is not measured yet: the number is that of AVX-512.
    "bf16": FormChanges(widen_bf16=None, onednn_bf16=True, unpack_int4=192),
    "avx512": FormChanges(widen_bf16=12, onednn_bf16=True, unpack_int4=192),
    "other": FormChanges(widen_bf16=4, onednn_bf16=False, unpack_int4=128),
}


@functools.cache
def cpu_kind() -> CpuKind:
    """What torch computes with here, which ATEN_CPU_CAPABILITY may lower."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() else "avx512"
    on_x86 = capability in ("AVX2", "DEFAULT")
    return "bf16" if not on_x86 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "other"


def form_changes() -> FormChanges:
    """Those of this processor."""
    return FORM_CHANGES[cpu_kind()]


def packs_int8_for_avx512() -> bool:
    """How FBGEMM packs int8 here. Whoever lowers torch's instructions has to lower FBGEMM's too."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
