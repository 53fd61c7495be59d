"""Why a rung of the plan was chosen or not."""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.plan import Precision, Text
from entrypoint.reasons.reason import Reason

Devices = tuple[str, ...]
"""As `Rung.devices`."""


@dataclass(frozen=True, kw_only=True)
class Fit(Reason):
    """What the reasons of a chosen rung have in common: where it fits."""

    devices: Devices
    layers: tuple[int, ...] = ()
    """How many lie on each of several devices, in their order; empty for one device."""
    need_bytes: int
    free_bytes: int


@dataclass(frozen=True, kw_only=True)
class HighestThatFits(Fit):
    """No higher precision fits."""


@dataclass(frozen=True, kw_only=True)
class SetAndFits(Fit):
    """The user set the precision, and it fits."""


@dataclass(frozen=True, kw_only=True)
class FitsWithCpu(Fit):
    """GPU memory alone is too small, with layers on the CPU it fits."""


@dataclass(frozen=True, kw_only=True)
class FitsShorter(Fit):
    """The lowest precision fits, with a shorter context than Berth aims at."""

    max_model_len: int
    target_model_len: int


@dataclass(frozen=True, kw_only=True)
class FitsAsStored(Fit):
    """The only precision of a checkpoint that is stored quantised."""

    format: str


@dataclass(frozen=True)
class ShortOfMemory(Reason):
    """The devices have too little free memory."""

    devices: Devices
    need_bytes: int
    free_bytes: int
    short_bytes: int
    """Summed over the devices: what is left on one is of no use to another."""


@dataclass(frozen=True)
class LayersIndivisible(Reason):
    """The devices have enough memory together, but a layer lies on one of them."""


@dataclass(frozen=True)
class ContainerLimit(Reason):
    """The container may use less memory than the machine has."""

    limit_bytes: int


@dataclass(frozen=True)
class ShortOfRam(Reason):
    """Loading a model onto GPUs takes more host memory than is free."""

    need_bytes: int
    free_bytes: int
    limit: ContainerLimit | None


@dataclass(frozen=True)
class ExpertsStay(Reason):
    """Quantising saves little of a mixture of experts: bitsandbytes quantises none of them."""

    precision: Precision
    saved_bytes: int
    weights_bytes: int
    """What remains."""


@dataclass(frozen=True)
class FitsToo(Reason):
    """It fits, and another rung was chosen."""

    chosen_precision: Precision
    chosen_devices: Devices
    same_devices: bool


@dataclass(frozen=True)
class PrecisionExcluded(Reason):
    """The user set another precision."""

    requested: Precision
    fits: bool


@dataclass(frozen=True)
class ServedBefore(Reason):
    """After a death in service, the rung that served is tried first."""

    precision: Precision


@dataclass(frozen=True)
class RanOutBefore(Reason):
    """The rung ran out of memory on this machine."""

    precision: str
    planned_bytes: int


@dataclass(frozen=True)
class RanOutWithSlots(Reason):
    """The rung ran out of memory on this machine with more requests at once."""

    max_num_seqs: int


@dataclass(frozen=True)
class GpuUnusable(Reason):
    """The engine can't use the GPU at all."""

    why: Text


@dataclass(frozen=True)
class RowsNotInBlocks(Reason):
    """The rows of a weight are no whole blocks of bitsandbytes' 4-bit kernels."""


@dataclass(frozen=True)
class NoFp8Kernels(Reason):
    """The GPU multiplies FP8, this engine doesn't."""


@dataclass(frozen=True)
class Fp8Expands(Reason):
    """The device can't multiply FP8, and the weights in bf16 take more."""

    need_bytes: int


@dataclass(frozen=True)
class StoredOtherwise(Reason):
    """The user set another precision than the one in which the weights are stored."""

    stored: Precision
    format: str
    requested: Precision
