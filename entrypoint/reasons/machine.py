"""Why no GPU is used, why one is left out, and what there is to know of those that are used."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.reasons.reason import Reason


@dataclass(frozen=True)
class NoDriver(Reason):
    """NVML's library is not there, and nothing hints at a driver."""


@dataclass(frozen=True)
class NoDevice(Reason):
    """The driver answers and counts no GPU."""


@dataclass(frozen=True)
class DriverNotLoaded(Reason):
    """NVML's library is there, the kernel module is not."""


@dataclass(frozen=True)
class DriverTimedOut(Reason):
    """The driver doesn't answer."""


@dataclass(frozen=True)
class DriverMismatch(Reason):
    """Library and kernel module are of different versions."""

    answer: str
    """What the driver says, as in the following classes."""


@dataclass(frozen=True)
class DriverLostGpus(Reason):
    """An unknown error: so a container's driver answers after systemd has reloaded its units."""

    answer: str


@dataclass(frozen=True)
class DriverFailed(Reason):
    """Any other error of the whole driver."""

    answer: str


@dataclass(frozen=True)
class HiddenFromContainer(Reason):
    """NVIDIA_VISIBLE_DEVICES with which the container toolkit passes no GPU on."""

    value: str


@dataclass(frozen=True)
class UtilityMissing(Reason):
    """NVIDIA_DRIVER_CAPABILITIES without NVML."""

    capabilities: str


@dataclass(frozen=True)
class NoGpuInContainer(Reason):
    """The host has a driver, and the container got no GPU."""


@dataclass(frozen=True)
class GpuOffBus(Reason):
    """The driver counts the GPU and can't reach it."""

    index: int
    answer: str


@dataclass(frozen=True)
class GpuNotPermitted(Reason):
    """This process may not read the GPU, which is so if it is divided into MIG instances of others."""

    index: int
    answer: str


@dataclass(frozen=True)
class GpuTakenAway(Reason):
    """The same as DriverLostGpus, for one GPU."""

    index: int
    answer: str


@dataclass(frozen=True)
class GpuFailed(Reason):
    """Any other error of one GPU."""

    index: int
    answer: str


@dataclass(frozen=True)
class ContainerLostGpu(Reason):
    """A GPU in use was taken away from the container."""

    answer: str


@dataclass(frozen=True)
class GpuDisappeared(Reason):
    """A GPU in use is not there any more, and the driver doesn't say why."""

    name: str


@dataclass(frozen=True)
class AllGpusHidden(Reason):
    """CUDA_VISIBLE_DEVICES is empty, or starts with a negative number."""

    value: str


@dataclass(frozen=True)
class GpuNamedTwice(Reason):
    """CUDA_VISIBLE_DEVICES names a GPU twice."""

    value: str


@dataclass(frozen=True)
class NoGpuNamed(Reason):
    """CUDA_VISIBLE_DEVICES starts with something that is not a GPU here."""

    value: str
    uuids: tuple[str, ...]


@dataclass(frozen=True)
class ListEndsEarly(Reason):
    """CUDA_VISIBLE_DEVICES has an entry that is not a GPU here, and CUDA ignores what follows."""

    value: str
    entry: str


@dataclass(frozen=True)
class PciOrder(Reason):
    """CUDA_VISIBLE_DEVICES has numbers, and CUDA's own order may be another one."""

    value: str


@dataclass(frozen=True)
class UnifiedMemory(Reason):
    """The GPU uses the host's memory."""

    index: int
    available_bytes: int


@dataclass(frozen=True)
class NoBf16(Reason):
    """The GPU is older than compute capability 8.0."""

    index: int
    capability: str


@dataclass(frozen=True)
class GpuMemoryInUse(Reason):
    """Other processes use a good part of the GPU's memory."""

    index: int
    used_bytes: int
    total_bytes: int
    processes: int
    """That the driver names; in a container often none."""
    process_bytes: int | None
    """What the named ones use together, if the driver says."""


@dataclass(frozen=True)
class TorchWithoutCuda(Reason):
    """The installed torch is built for the CPU."""

    version: str
    device: str


@dataclass(frozen=True)
class DriverTooOld(Reason):
    """The driver runs CUDA versions before the one that torch is built with."""

    driver: str
    driver_cuda: str
    torch_cuda: int
    """Major version."""
    least_driver: str | None


@dataclass(frozen=True)
class CapabilityNotBuilt(Reason):
    """Torch has no code for this GPU."""

    capability: str
    version: str
    built: tuple[str, ...]
    """Compute capabilities that torch has code for."""
    is_older: bool
    """Whether the GPU is older than all of them."""
