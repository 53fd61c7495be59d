"""Whether the installed torch can run on a GPU at all."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from app.contract.plan import Device, Text
from entrypoint.messages.sentence import text
from entrypoint.reasons.machine import CapabilityNotBuilt, DriverTooOld, TorchWithoutCuda
from entrypoint.reasons.reason import Reason

LEAST_DRIVER = {11: "450", 12: "525", 13: "580"}
"""Linux drivers, by CUDA's major version (CUDA Toolkit release notes, "CUDA Toolkit and Minimum Required Driver")."""


def why_unusable(device: Device | None, torch: TorchBuild | None) -> Text | None:
    """Why the engine can't use a GPU, or None if it can, as far as is known; None as device is the CPU."""
    if device is None or device.unusable:
        return device.unusable if device else None
    reason = torch_obstacle(device, torch)
    return text(reason) if reason else None


def torch_obstacle(device: Device, torch: TorchBuild | None) -> Reason | None:
    """Why this torch can't use a GPU, or None if it can, or if nothing is known about the torch."""
    if torch is None:
        return None
    if torch.cuda is None:
        return TorchWithoutCuda(torch.version, device.name)
    return _old_driver(device, torch.cuda) or _not_built_for(device, torch)


def _old_driver(device: Device, cuda: str) -> Reason | None:
    """CUDA runs on drivers of its own major version and later ones (CUDA's "minor version compatibility")."""
    major = int(cuda.partition(".")[0])
    if device.cuda_driver is None or device.cuda_driver[0] >= major:
        return None
    return DriverTooOld(device.driver, ".".join(map(str, device.cuda_driver)), major, LEAST_DRIVER.get(major))


def _not_built_for(device: Device, torch: TorchBuild) -> Reason | None:
    capability = device.compute_capability
    if capability is None or not torch.arches or any(_runs(name, capability) for name in torch.arches):
        return None
    built = sorted({_architecture(name) for name in torch.arches})
    names = tuple(f"{major}.{minor}" for major, minor in built)
    return CapabilityNotBuilt(".".join(map(str, capability)), torch.version, names, capability < built[0])


def _runs(built: str, capability: tuple[int, ...]) -> bool:
    """Whether code built for an architecture runs on a GPU.

    Machine code (sm_80) runs on the same major version from its minor on, PTX (compute_90) on everything later; the
    code of sm_90a runs on that GPU alone (CUDA C++ Programming Guide, "Application Compatibility").
    """
    architecture = _architecture(built)
    if built.endswith("a"):
        return capability == architecture
    later = capability >= architecture
    return later and (built.startswith("compute_") or capability[0] == architecture[0])


def _architecture(name: str) -> tuple[int, int]:
    digits = "".join(c for c in name if c.isdigit())
    return int(digits[:-1]), int(digits[-1])


@dataclass(frozen=True)
class TorchBuild:
    """What the installed torch can run on; written beside it when the environment or image is made."""

    version: str
    cuda: str | None
    arches: tuple[str, ...] = ()


def read_torch_build(prefix: Path = Path(sys.prefix)) -> TorchBuild | None:
    """The facts that tools/setup_env.py wrote, or None if the environment was made by hand."""
    try:
        facts = json.loads((prefix / "berth-torch.json").read_text(encoding="utf-8"))
        return TorchBuild(str(facts["version"]), facts["cuda"], tuple(facts["arches"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
