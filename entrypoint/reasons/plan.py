"""Why a rung of the plan was chosen or not."""

from __future__ import annotations

from typing import Literal

from app.contract.plan import Precision, Text
from entrypoint.reasons.reason import Reason

Devices = tuple[str, ...]
"""As `Rung.devices`."""


class Fit(Reason, kw_only=True):
    """What the reasons of a chosen rung have in common: where it fits."""

    devices: Devices
    layers: tuple[int, ...] = ()
    """How many lie on each of several devices, in their order; empty for one device."""
    need_bytes: int
    free_bytes: int


class HighestThatFits(Fit, kw_only=True):
    """No higher precision fits."""


class SetAndFits(Fit, kw_only=True):
    """The user set the precision, and it fits."""


class FitsWithCpu(Fit, kw_only=True):
    """GPU memory alone is too small, with layers on the CPU it fits."""


class FitsShorter(Fit, kw_only=True):
    """The lowest precision fits, with a shorter context than Berth aims at."""

    max_model_len: int
    target_model_len: int


class FitsAsStored(Fit, kw_only=True):
    """The only precision of a checkpoint that is stored quantised."""

    format: str


class ShortOfMemory(Reason):
    """The devices have too little free memory."""

    devices: Devices
    need_bytes: int
    free_bytes: int
    short_bytes: int
    """Summed over the devices: what is left on one is of no use to another."""


class LayersIndivisible(Reason):
    """The devices have enough memory together, but a layer lies on one of them."""


class ContainerLimit(Reason):
    """The container may use less memory than the machine has."""

    limit_bytes: int


class ShortOfRam(Reason):
    """Loading a model onto GPUs takes more host memory than is free."""

    need_bytes: int
    free_bytes: int
    limit: ContainerLimit | None


class ExpertsStay(Reason):
    """Quantising saves little of a mixture of experts: they are left as they are."""

    precision: Precision
    saved_bytes: int
    weights_bytes: int
    """What remains."""


class WeightForm(Reason):
    """What int8 or int4 is here: the CPU's own form, bitsandbytes' on GPUs, or both."""

    precision: Literal["int8", "int4"]
    on_cpu: bool
    on_gpu: bool


class FitsToo(Reason):
    """It fits, and another rung was chosen."""

    chosen_precision: Precision
    chosen_devices: Devices
    same_devices: bool


class PrecisionExcluded(Reason):
    """The user set another precision."""

    requested: Precision
    fits: bool


class ServedBefore(Reason):
    """After a death in service, the rung that served is tried first."""

    precision: Precision


class RanOutBefore(Reason):
    """The rung ran out of memory on this machine."""

    precision: str
    planned_bytes: int


class RanOutWithSlots(Reason):
    """The rung ran out of memory on this machine with more requests at once."""

    max_num_seqs: int


class GpuUnusable(Reason):
    """The engine can't use the GPU at all."""

    why: Text


class RowsNotInBlocks(Reason):
    """The rows of a weight are no whole blocks of the 4-bit kernels."""


class NoFp8Kernels(Reason):
    """The GPU multiplies FP8, this engine doesn't."""


class Fp8Expands(Reason):
    """The device can't multiply FP8, and the weights in bf16 take more."""

    need_bytes: int


class StoredOtherwise(Reason):
    """The user set another precision than the one in which the weights are stored."""

    stored: Precision
    format: str
    requested: Precision
