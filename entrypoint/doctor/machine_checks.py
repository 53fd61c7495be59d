"""The doctor's checks of the machine: GPUs, memory, folders and port."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.contract.plan import Device, Text
from entrypoint.doctor.check import Check, CheckGroup, Verdict, appended, check
from entrypoint.machine.gpu_notes import memory_in_use
from entrypoint.machine.gpus import ANSWER_SECONDS, probe_gpus
from entrypoint.machine.host import read_host
from entrypoint.machine.torch_build import TorchBuild, read_torch_build, why_unusable
from entrypoint.measure import discounted
from entrypoint.messages.sentence import text
from entrypoint.paths import existing, make_writable, not_writable
from entrypoint.reasons.doctor import (
    CapabilitySupported,
    ChangePort,
    DriverWorks,
    FreeGpuMemory,
    GpuMemory,
    HostMemory,
    InstallToolkit,
    MountRunDir,
    PortFree,
    PortUsedByBerth,
    RaiseMemoryLimit,
    Reinstall,
    RunOnCpu,
    SharesHostMemory,
    ToolkitMissing,
    TorchUnknown,
    UpdateDriverOrTorch,
    Writable,
)
from entrypoint.reasons.files import InvalidSetting
from entrypoint.reasons.machine import NoDriver
from entrypoint.reasons.reason import Reason
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.state_dir import RUN_DIR, MemoryUsage, is_running, make_run_dir, pid_namespace, read_usage
from entrypoint.supervisor.listener import bind
from entrypoint.units import GIB

RUNS_ON_CPU = Text(" Berth runs on the CPU.", "Berth 将在 CPU 上运行。")


def gpu_checks(settings: Settings) -> list[Check]:
    """Driver and container toolkit; for each GPU its compute capability and the memory that others hold."""
    gpus = probe_gpus(settings.environment)
    notes = [check("driver", "warn", note) for note in gpus.notes]
    if gpus.why_none is not None:
        return [_no_gpu(gpus.why_none, settings.require_gpu), *notes]
    first, torch, usage = gpus.devices[0], read_torch_build(), read_usage(settings.state_dir)
    cuda = ".".join(map(str, first.cuda_driver or ())) or "?"
    driver = DriverWorks(first.driver, cuda, tuple(device.name for device in gpus.devices))
    checks = [check("driver", "pass", driver), *notes]
    if shutil.which("docker") and not shutil.which("nvidia-ctk"):
        checks.append(check("toolkit", "warn", ToolkitMissing(), InstallToolkit()))
    usable = any(why_unusable(device, torch) is None for device in gpus.devices)
    for device in gpus.devices:
        checks.append(_capability(device, torch, "fail" if settings.require_gpu and not usable else "warn"))
        checks.append(_gpu_memory(device, usage))
    return checks


def _no_gpu(reason: Reason, required: bool) -> Check:
    if required:
        return check("driver", "fail", reason, RunOnCpu())
    if isinstance(reason, NoDriver):  # an ordinary machine without a GPU
        return Check("driver", "pass", appended(text(reason), RUNS_ON_CPU))
    return check("driver", "warn", reason)


def _capability(device: Device, torch: TorchBuild | None, failure: Verdict) -> Check:
    name = f"GPU {device.index} capability"
    if torch is None:
        return check(name, "warn", TorchUnknown(), Reinstall())
    if why := why_unusable(device, torch):
        return Check(name, failure, why, text(UpdateDriverOrTorch()))
    capability = ".".join(map(str, device.compute_capability or ())) or "?"
    return check(name, "pass", CapabilitySupported(capability, torch.version))


def _gpu_memory(device: Device, usage: MemoryUsage) -> Check:
    name, device = f"GPU {device.index} memory", discounted(device, usage)
    if in_use := memory_in_use(device):
        return check(name, "warn", in_use, FreeGpuMemory())
    if device.free_bytes is None or device.total_bytes is None:
        return check(name, "pass", SharesHostMemory())
    return check(name, "pass", GpuMemory(device.free_bytes, device.total_bytes))


def memory_checks(settings: Settings) -> list[Check]:
    """Free RAM and the container's limit."""
    usage = read_usage(settings.state_dir)
    host = read_host(settings.hf_home, usage.anonymous_bytes, usage.namespace == pid_namespace())
    memory = HostMemory(host.available_bytes, host.ram_bytes, host.limit_bytes)
    if host.available_bytes >= GIB:
        return [check("memory", "pass", memory)]
    return [check("memory", "warn", memory, RaiseMemoryLimit())]


def folder_checks(settings: Settings) -> list[Check]:
    """Write access to the state, weights and run directories; leaves nothing behind."""
    return [
        _writable("GLM_STATE_DIR", settings.state_dir, "fail"),
        _writable("HF_HOME", settings.hf_home, "warn"),
        _run_dir(),
    ]


def _writable(setting: str, folder: Path, failure: Verdict) -> Check:
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            pass
    except OSError as error:
        return check(setting, failure, not_writable(folder, error), make_writable(folder, setting))
    return check(setting, "pass", Writable(str(folder)))


def _run_dir() -> Check:
    try:
        folder = make_run_dir()
    except (SettingsError, OSError) as error:
        return check("run directory", "fail", InvalidSetting(str(error)), MountRunDir())
    if folder == RUN_DIR:
        return check("run directory", "pass", Writable(str(folder)))
    folder.rmdir()
    return check("run directory", "pass", Writable(str(folder.parent)))


def port_checks(settings: Settings) -> list[Check]:
    """Whether the port is free, or used by the Berth that runs on this state directory."""
    try:
        with contextlib.closing(bind(settings)):
            return [check("port", "pass", PortFree(settings.bind, settings.port))]
    except SettingsError as error:
        if is_running(settings.state_dir):
            return [check("port", "pass", PortUsedByBerth(settings.port))]
        return [check("port", "fail", InvalidSetting(str(error)), ChangePort())]


MACHINE_GROUPS: Sequence[CheckGroup] = (
    CheckGroup("driver", ANSWER_SECONDS + 10, gpu_checks),
    CheckGroup("memory", 10, memory_checks),
    CheckGroup("folders", 20, folder_checks),
    CheckGroup("port", 10, port_checks),
)
