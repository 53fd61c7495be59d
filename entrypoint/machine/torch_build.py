"""Whether the installed torch can run on a GPU at all."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from app.contract.plan import Device, Text

LEAST_DRIVER = {11: "450", 12: "525", 13: "580"}
"""Linux drivers, by CUDA's major version (CUDA Toolkit release notes, "CUDA Toolkit and Minimum Required Driver")."""


def why_unusable(device: Device | None, torch: TorchBuild | None) -> Text | None:
    """Why this torch can't use a GPU, or None where it can or nothing is known of it; None as device is the CPU."""
    if device is None or device.unusable or torch is None:
        return device.unusable if device else None
    if torch.cuda is None:
        return Text(
            f"torch {torch.version} is a CPU build; install the CUDA build to use {device.name}",
            f"torch {torch.version} 是 CPU 版本；要使用 {device.name}，请安装 CUDA 版本",
        )
    return _old_driver(device, torch.cuda) or _not_built_for(device, torch)


def _old_driver(device: Device, cuda: str) -> Text | None:
    """CUDA runs on drivers of its own major version and later ones (CUDA's "minor version compatibility")."""
    major = int(cuda.partition(".")[0])
    if device.cuda_driver is None or device.cuda_driver[0] >= major:
        return None
    runs = ".".join(map(str, device.cuda_driver))
    least = LEAST_DRIVER.get(major)
    needs, needs_zh = (f": driver {least} or newer", f"：请安装 {least} 或更新的驱动") if least else ("", "")
    return Text(
        f"driver {device.driver} supports CUDA {runs}; this torch needs {major}.x{needs}",
        f"驱动 {device.driver} 支持 CUDA {runs}；当前 torch 需要 {major}.x{needs_zh}",
    )


def _not_built_for(device: Device, torch: TorchBuild) -> Text | None:
    capability = device.compute_capability
    if capability is None or not torch.arches or any(_runs(name, capability) for name in torch.arches):
        return None
    has = ".".join(map(str, capability))
    built = sorted({_architecture(name) for name in torch.arches})
    names = ", ".join(f"{major}.{minor}" for major, minor in built)
    older = capability < built[0]
    other, other_zh = ("; a build for an older CUDA may have it", "；较旧 CUDA 的版本可能支持") if older else ("", "")
    return Text(
        f"compute capability {has} is not in torch {torch.version}, which is built for {names}{other}",
        f"torch {torch.version} 不支持计算能力 {has}，只支持 {names}{other_zh}",
    )


def _runs(built: str, capability: tuple[int, ...]) -> bool:
    """Whether code built for an architecture runs on a card.

    Machine code (sm_80) runs on the same major version from its minor on, PTX (compute_90) on everything later; the
    code of sm_90a runs on that card alone (CUDA C++ Programming Guide, "Application Compatibility").
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
    """The facts that tools/setup_env.py wrote, or None where the environment was made by hand."""
    try:
        facts = json.loads((prefix / "berth-torch.json").read_text(encoding="utf-8"))
        return TorchBuild(str(facts["version"]), facts["cuda"], tuple(facts["arches"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
