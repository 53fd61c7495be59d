"""What an error of NVML means: why no GPU is seen, why one is not used, why one that was used is gone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pynvml

from app.contract.plan import Device
from entrypoint.reasons import machine
from entrypoint.reasons.reason import Reason

HIDDEN = ("void", "none")
"""NVIDIA_VISIBLE_DEVICES with which the container toolkit passes no GPU to a container."""


def no_gpu(error: pynvml.NVMLError, environment: Mapping[str, str], root: Path) -> Reason:
    """Why NVML can't be used at all."""
    if isinstance(error, pynvml.NVMLError_LibraryNotFound):
        return _no_library(environment, root)
    if isinstance(error, pynvml.NVMLError_DriverNotLoaded):
        return machine.DriverNotLoaded()
    if isinstance(error, pynvml.NVMLError_Timeout):
        return machine.DriverTimedOut()
    if isinstance(error, pynvml.NVMLError_Unknown):
        return machine.DriverLostGpus(_answer(error))
    if isinstance(error, pynvml.NVMLError_LibRmVersionMismatch):
        return machine.DriverMismatch(_answer(error))
    return machine.DriverFailed(_answer(error))


def _no_library(environment: Mapping[str, str], root: Path) -> Reason:
    visible = environment.get("NVIDIA_VISIBLE_DEVICES", "")
    if visible in HIDDEN:
        return machine.HiddenFromContainer(visible)
    if not (root / "proc/driver/nvidia/version").exists():
        return machine.NoDriver()
    capabilities = environment.get("NVIDIA_DRIVER_CAPABILITIES", "utility")
    if not {"utility", "all"} & set(capabilities.split(",")):
        return machine.UtilityMissing(capabilities)
    return machine.NoGpuInContainer()


def not_used(index: int, error: pynvml.NVMLError) -> Reason:
    """Why one GPU is not used, although the driver counts it."""
    answer = _answer(error)
    if isinstance(error, (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)):
        return machine.GpuOffBus(index, answer)
    if isinstance(error, pynvml.NVMLError_NoPermission):
        return machine.GpuNotPermitted(index, answer)
    if isinstance(error, pynvml.NVMLError_Unknown):
        return machine.GpuTakenAway(index, answer)
    return machine.GpuFailed(index, answer)


def lost(device: Device, reason: Reason | None, error: pynvml.NVMLError | None) -> Reason:
    """Why a GPU that was used is gone; `reason` is what the probe says about it now."""
    if isinstance(error, pynvml.NVMLError_Unknown):
        return machine.ContainerLostGpu(_answer(error))
    return reason or machine.GpuDisappeared(device.name)


def _answer(error: pynvml.NVMLError) -> str:
    return str(error).rstrip(".")
