"""What a plan is made from."""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.plan import Device, Host, Model, Precision, Text
from app.layouts.layout import Layout
from app.layouts.shape import Shape
from entrypoint.checkpoint.quantised import StoredFormat
from entrypoint.machine.torch_build import TorchBuild
from entrypoint.settings.settings import Settings

MOST_SLOTS = 16
"""Requests at once that Berth chooses by itself at most."""


@dataclass(frozen=True)
class Barred:
    """A rung that ran out of memory on this machine: not to be tried, or not with so many requests at once."""

    precision: str
    device: str
    why: Text
    max_num_seqs: int = 0
    """The most slots that may be chosen for it; 0 is none: the rung is not tried at all."""
    max_model_len: int = 0
    """The longest context beside them: what fewer slots free is not to be filled again."""


@dataclass(frozen=True)
class Question:
    """Everything a plan depends on."""

    settings: Settings
    model: Model
    layout: Layout
    shape: Shape
    host: Host
    devices: tuple[Device, ...] = ()
    torch: TorchBuild | None = None
    barred: tuple[Barred, ...] = ()
    only: tuple[Precision, str] | None = None
    """After a death in service: the same precision and devices again."""
    most_slots: int = MOST_SLOTS
    """The most that are chosen automatically, whatever the rung."""
    stored: StoredFormat | None = None
    """Where the weights are stored quantised: the ladder is that one rung."""
    cpu: bool = True
    """Whether the CPU may hold layers; a question about cards that are not here leaves it out."""

    def fewer_slots(self, precision: str, device: str) -> Barred | None:
        """What keeps a rung from as many slots as there is memory for."""
        same = (barred for barred in self.barred if (barred.precision, barred.device) == (precision, device))
        return min((one for one in same if one.max_num_seqs), key=lambda one: one.max_num_seqs, default=None)

    def free_bytes(self, device: Device | None) -> int:
        """Free memory of a GPU or, where the device is None, of the host."""
        if device is None or shares_host(device):
            return self.host.available_bytes
        return device.free_bytes or 0


def shares_host(device: Device) -> bool:
    """Whether a GPU's memory is the host's, or its own is unknown: the host's is then the only budget there is."""
    return device.unified or device.free_bytes is None
