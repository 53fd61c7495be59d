"""What the checks of `doctor` find, and their remedies."""

from __future__ import annotations

from entrypoint.reasons.reason import Reason


class CheckTimedOut(Reason):
    """A check did not finish within `seconds`."""

    seconds: float


class CheckBroke(Reason):
    """A check raised an exception; `error` is its type and text."""

    error: str


# GPUs


class DriverWorks(Reason):
    """The driver answers, and it shows GPUs."""

    driver: str
    cuda: str
    """The newest CUDA version that the driver runs; `?` if it does not say."""
    gpus: tuple[str, ...]


class ToolkitMissing(Reason):
    """Docker is installed and nvidia-container-toolkit is not."""


class TorchUnknown(Reason):
    """The file that says what the installed torch supports is missing."""


class CapabilitySupported(Reason):
    """The installed torch has code for the GPU."""

    capability: str
    torch: str


class SharesHostMemory(Reason):
    """The GPU has no memory of its own."""


class GpuMemory(Reason):
    """How much of a GPU's memory is free."""

    free_bytes: int
    total_bytes: int


# Host


class HostMemory(Reason):
    """How much RAM is free; `limit_bytes` is the container's limit, None without one."""

    free_bytes: int
    ram_bytes: int
    limit_bytes: int | None


class Writable(Reason):
    """A folder can be written."""

    folder: str


class PortFree(Reason):
    """Nothing listens on the address."""

    bind: str
    port: int


class PortUsedByBerth(Reason):
    """The Berth that runs on this state directory listens on the port."""

    port: int


# Packages


class Versions(Reason):
    """Each package with its version."""

    packages: tuple[str, ...]


class BitsandbytesWorks(Reason):
    """The native library of bitsandbytes is loaded."""

    library: str


class BitsandbytesTimedOut(Reason):
    """The import of bitsandbytes took too long."""

    seconds: float


class BitsandbytesNotImportable(Reason):
    """The import of bitsandbytes failed; `error` is the last line that Python prints."""

    error: str


class BitsandbytesNotLoaded(Reason):
    """bitsandbytes can be imported, but its native library can't be loaded."""

    error: str


# Model


class HubNotUsed(Reason):
    """HF_HUB_OFFLINE is set."""


class HubAnswers(Reason):
    """The hub answers."""

    endpoint: str


class ModelNotChecked(Reason):
    """The model is not on this machine, and the hub could not be reached."""

    model: str


class NothingToDownload(Reason):
    """The model is on this machine; so much room is left at HF_HOME."""

    free_bytes: int


class RoomForDownload(Reason):
    """HF_HOME has room for the download."""

    free_bytes: int
    need_bytes: int


class ModelReadable(Reason):
    """Config and headers of the model are correct."""

    model: str
    parameters: int


# Remedies


class RunNvidiaSmi(Reason):
    """Something that the check asks hangs: look at the host."""


class RunOnCpu(Reason):
    """Set GLM_REQUIRE_GPU=0."""


class InstallToolkit(Reason):
    """Install nvidia-container-toolkit."""


class UpdateDriverOrTorch(Reason):
    """Update the driver, or use another build of torch."""


class FreeGpuMemory(Reason):
    """End the processes that hold GPU memory."""


class RaiseMemoryLimit(Reason):
    """Set BERTH_MEMORY, or end processes that hold RAM."""


class MountRunDir(Reason):
    """Mount a tmpfs at /run/berth, or set TMPDIR."""


class ChangePort(Reason):
    """Stop the program that uses the port, or set GLM_PORT."""


class Reinstall(Reason):
    """Create the environment or the image again."""


class ReinstallBitsandbytes(Reason):
    """`Reinstall`, and what does not work until then."""
