"""What a plan is made from."""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.limits import MOST_SLOTS
from app.contract.plan import Device, Host, Model, Precision
from app.layouts.layout import Layout
from app.layouts.shape import Shape
from entrypoint.checkpoint.quantised import StoredFormat
from entrypoint.machine.torch_build import TorchBuild
from entrypoint.reasons.reason import Reason
from entrypoint.settings.settings import Settings


@dataclass(frozen=True, kw_only=True)
class FailedRung:
    """A rung that ran out of memory on this machine: not to be tried, or not with so many requests at once."""

    precision: str
    devices: tuple[str, ...]
    why: Reason
    max_num_seqs: int = 0
    """The most slots that may be chosen for it; 0 is none: the rung is not tried at all."""
    max_model_len: int = 0
    """The longest context beside them: what fewer slots free is not to be filled again."""


@dataclass(frozen=True)
class ReachedSpeed:
    """What one request alone reached with a rung on this machine."""

    precision: str
    devices: tuple[str, ...]
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """Everything a plan depends on."""

    settings: Settings
    model: Model
    layout: Layout
    shape: Shape
    host: Host
    devices: tuple[Device, ...] = ()
    torch: TorchBuild | None = None
    failed_rungs: tuple[FailedRung, ...] = ()
    only: tuple[Precision, tuple[str, ...]] | None = None
    """After a death in service: the same precision and devices again."""
    most_slots: int = MOST_SLOTS
    """The most that are chosen automatically, whatever the rung."""
    stored: StoredFormat | None = None
    """If the weights are stored quantised: the ladder is that one rung."""
    cpu: bool = True
    """Whether the CPU may hold layers. For cards that are not here it may not."""
    spare_memory: bool = True
    """Whether a model on the CPU is to leave memory to others: few slots, no more cache than weights."""
    reached: tuple[ReachedSpeed, ...] = ()
    """What earlier runs measured."""

    def fewer_slots(self, precision: str, devices: tuple[str, ...]) -> FailedRung | None:
        """What keeps a rung from as many slots as there is memory for."""
        same = (rung for rung in self.failed_rungs if (rung.precision, rung.devices) == (precision, devices))
        return min((rung for rung in same if rung.max_num_seqs), key=lambda rung: rung.max_num_seqs, default=None)

    def tokens_per_second(self, precision: str, devices: tuple[str, ...]) -> float | None:
        """What an earlier run of this rung reached."""
        same = (speed for speed in self.reached if (speed.precision, speed.devices) == (precision, devices))
        return next((speed.tokens_per_second for speed in same), None)

    def free_bytes(self, device: Device | None) -> int:
        """Free memory of a GPU, or of the host if the device is None."""
        if device is None or shares_host(device):
            return self.host.available_bytes
        return device.free_bytes or 0

    def memory_bytes_per_second(self, device: Device | None) -> int | None:
        """How fast a GPU's memory is, or the host's if the device is None; None if unknown."""
        return self.host.memory_bytes_per_second if device is None else device.memory_bytes_per_second


def shares_host(device: Device) -> bool:
    """Whether a GPU's memory is the host's, or its own is unknown: the host's is then the only budget there is."""
    return device.unified or device.free_bytes is None
