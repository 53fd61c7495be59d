"""Why no plan can be carried out, and what would change that."""

from __future__ import annotations

from app.contract.plan import Precision, Text
from entrypoint.reasons.plan import ContainerLimit, Devices, ShortOfRam
from entrypoint.reasons.reason import Reason


class NoGpuSeen(Reason):
    """GLM_REQUIRE_GPU is 1, and no GPU is seen."""

    note: Text | None
    """Why, if that is known."""


class AllowCpu(Reason):
    """Remedy: a GPU for the container, or the CPU."""


class NoPrecisionUsable(Reason):
    """Every rung is excluded or unsupported; the first one's reason."""

    reason: Reason


class CannotLoad(Reason):
    """The model fits the GPUs, but the host's memory is too small to load it."""

    model: str
    reason: ShortOfRam


class ModelTooLarge(Reason, kw_only=True):
    """Not even the smallest plan fits."""

    model: str
    precision: Precision
    devices: Devices
    max_model_len: int
    max_num_seqs: int
    need_bytes: int
    free_bytes: int
    short_bytes: int
    limit: ContainerLimit | None
    """If the plan takes host memory."""


class SettingMakesItFit(Reason, kw_only=True):
    """Remedy: without the user's setting there is a plan that fits."""

    setting: str
    precision: Precision
    devices: Devices
    max_model_len: int
    need_bytes: int


class SmallerSettingFits(Reason, kw_only=True):
    """Remedy: with a smaller number there is a plan that fits."""

    setting: str
    value: int
    precision: Precision
    devices: Devices
    need_bytes: int
    max_model_len: int | None
    """The context of each request, if the setting is their number."""


class MoreMemory(Reason):
    """Remedy: more memory, or a smaller model."""

    devices: Devices
    """Where the smallest plan would run; empty if there is none."""
    need_bytes: int
    smaller_model: bool
    """Whether there is one to offer."""


class FormatUnsupported(Reason):
    """The weights are stored in a format that no device here computes."""

    model: str
    format: str
    stored_bytes: int
    reasons: tuple[Reason, ...]
    """One for each kind of device."""


class Use16BitCheckpoint(Reason):
    """Remedy: the same model in 16 bits."""

    model: str | None
    """Its hub id, if that is known."""
