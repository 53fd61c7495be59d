"""Why no GPU is used, why one is left out, and what there is to know of those that are used."""

from __future__ import annotations

from entrypoint.reasons.reason import Reason


class NoDriver(Reason):
    """NVML's library is not there, and nothing hints at a driver."""


class NoDevice(Reason):
    """The driver answers and counts no GPU."""


class DriverNotLoaded(Reason):
    """NVML's library is there, the kernel module is not."""


class DriverTimedOut(Reason):
    """The driver doesn't answer."""


class DriverMismatch(Reason):
    """Library and kernel module are of different versions."""

    answer: str
    """What the driver says, as in the following classes."""


class DriverLostGpus(Reason):
    """An unknown error: so a container's driver answers after systemd has reloaded its units."""

    answer: str


class DriverFailed(Reason):
    """Any other error of the whole driver."""

    answer: str


class HiddenFromContainer(Reason):
    """NVIDIA_VISIBLE_DEVICES with which the container toolkit passes no GPU on."""

    value: str


class UtilityMissing(Reason):
    """NVIDIA_DRIVER_CAPABILITIES without NVML."""

    capabilities: str


class NoGpuInContainer(Reason):
    """The host has a driver, and the container got no GPU."""


class GpuOffBus(Reason):
    """The driver counts the GPU and can't reach it."""

    index: int
    answer: str


class GpuNotPermitted(Reason):
    """This process may not read the GPU, which is so if it is divided into MIG instances of others."""

    index: int
    answer: str


class GpuTakenAway(Reason):
    """The same as DriverLostGpus, for one GPU."""

    index: int
    answer: str


class GpuFailed(Reason):
    """Any other error of one GPU."""

    index: int
    answer: str


class ContainerLostGpu(Reason):
    """A GPU in use was taken away from the container."""

    answer: str


class GpuDisappeared(Reason):
    """A GPU in use is not there any more, and the driver doesn't say why."""

    name: str


class AllGpusHidden(Reason):
    """CUDA_VISIBLE_DEVICES is empty, or starts with a negative number."""

    value: str


class GpuNamedTwice(Reason):
    """CUDA_VISIBLE_DEVICES names a GPU twice."""

    value: str


class NoGpuNamed(Reason):
    """CUDA_VISIBLE_DEVICES starts with something that is not a GPU here."""

    value: str
    uuids: tuple[str, ...]


class ListEndsEarly(Reason):
    """CUDA_VISIBLE_DEVICES has an entry that is not a GPU here, and CUDA ignores what follows."""

    value: str
    entry: str


class PciOrder(Reason):
    """CUDA_VISIBLE_DEVICES has numbers, and CUDA's own order may be another one."""

    value: str


class UnifiedMemory(Reason):
    """The GPU uses the host's memory."""

    index: int
    available_bytes: int


class NoBf16(Reason):
    """The GPU is older than compute capability 8.0."""

    index: int
    capability: str


class GpuMemoryInUse(Reason):
    """Other processes use a good part of the GPU's memory."""

    index: int
    used_bytes: int
    total_bytes: int
    processes: int
    """That the driver names; in a container often none."""
    process_bytes: int | None
    """What the named ones use together, if the driver says."""


class TorchWithoutCuda(Reason):
    """The installed torch is built for the CPU."""

    version: str
    device: str


class DriverTooOld(Reason):
    """The driver runs CUDA versions before the one that torch is built with."""

    driver: str
    driver_cuda: str
    torch_cuda: int
    """Major version."""
    least_driver: str | None


class CapabilityNotBuilt(Reason):
    """Torch has no code for this GPU."""

    capability: str
    version: str
    built: tuple[str, ...]
    """Compute capabilities that torch has code for."""
    is_older: bool
    """Whether the GPU is older than all of them."""
