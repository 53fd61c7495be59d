"""Where a value of the config comes from."""

from __future__ import annotations

from entrypoint.reasons.reason import Reason


class SetByYou(Reason):
    """The user set it."""


class FreeOnDevices(Reason):
    """A device was chosen for its free memory."""

    free_bytes: int
    devices: int
    """How many."""


class ModelLimit(Reason):
    """The model has no longer context."""


class DefaultContext(Reason):
    """The context that Berth aims at; memory that is left goes to more requests first."""


class ContextKeepsGpuLayers(Reason):
    """A longer context would move layers from GPUs to the CPU."""


class ContextFromMemory(Reason):
    """The longest context for which there is memory."""

    free_bytes: int


class SlotsKeepGpuLayers(Reason):
    """More requests at once would move layers from GPUs to the CPU."""


class SlotLimit(Reason):
    """There is memory for as many requests as Berth chooses by itself at most."""

    max_num_seqs: int


class SlotsFromMemory(Reason):
    """As many requests at once as there is memory for."""

    free_bytes: int
    max_model_len: int


class CpuSlotLimit(Reason):
    """There is memory for more requests at once, and Berth takes no more on a CPU by itself."""

    max_num_seqs: int
    slot_bytes: int
    """What one more takes."""


class CacheWithinWeights(Reason):
    """More would make the cache larger than the weights, which Berth does not do on a CPU by itself."""

    setting: str
    """What raises it."""
    cache_bytes: int
    weights_bytes: int


class ChunkBoundsMemory(Reason):
    """Long prompts are computed in chunks to bound their memory."""
