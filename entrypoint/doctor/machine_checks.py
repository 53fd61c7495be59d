"""The doctor's checks of the machine: GPUs, memory, folders, port."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.contract.plan import Device, Text
from entrypoint.doctor.check import Check, Group, Verdict
from entrypoint.machine.gpu_notes import memory_in_use
from entrypoint.machine.gpus import ANSWER_SECONDS, probe_gpus
from entrypoint.machine.host import read_host
from entrypoint.machine.torch_build import TorchBuild, read_torch_build, why_unusable
from entrypoint.measure import discounted
from entrypoint.messages.sentence import text
from entrypoint.paths import existing
from entrypoint.reasons.machine import NoDriver
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.state_dir import RUN_DIR, MemoryUsage, is_running, make_run_dir, owner, pid_namespace, read_usage
from entrypoint.supervisor.listener import bind
from entrypoint.units import GIB, size

ON_CPU = Text("Berth runs on the CPU.", "Berth 将在 CPU 上运行。")
GPU_REMEDY = Text(
    "With GLM_REQUIRE_GPU=0 in .env Berth would run on the CPU.",
    "在 .env 中设 GLM_REQUIRE_GPU=0，Berth 可在 CPU 上运行。",
)
TOOLKIT = Text(
    "Docker is here, but no nvidia-ctk: containers will be given no GPU.",
    "这里有 Docker 但没有 nvidia-ctk：容器得不到显卡。",
)
TOOLKIT_REMEDY = Text(
    "Install nvidia-container-toolkit, run `nvidia-ctk runtime configure --runtime=docker` and restart Docker.",
    "请安装 nvidia-container-toolkit，运行 `nvidia-ctk runtime configure --runtime=docker` 并重启 Docker。",
)
TORCH_REMEDY = Text(
    "Update the driver, or take a PyTorch build that has this GPU (image: TORCH=cuda).",
    "请更新驱动，或使用支持这块显卡的 PyTorch 版本（镜像：TORCH=cuda）。",
)
NO_TORCH = Text(
    "what torch supports is not known: berth-torch.json is missing", "缺少 berth-torch.json，不知道 torch 支持什么"
)
NO_TORCH_REMEDY = Text("Make the environment anew: make setup.", "请重新创建环境：make setup。")
HELD_REMEDY = Text("End what holds it, or plan with what is left.", "请结束占用它的进程，或按剩余显存运行。")


def gpu_checks(settings: Settings) -> list[Check]:
    """Driver and toolkit, compute capability against the torch build, memory held by others."""
    gpus = probe_gpus(settings.environment)
    notes = [text(note) for note in gpus.notes]
    if gpus.why_none is not None:
        harmless = isinstance(gpus.why_none, NoDriver) and not settings.require_gpu
        finding = text(gpus.why_none)
        finding = Text(f"{finding.en} {ON_CPU.en}", f"{finding.zh}{ON_CPU.zh}") if harmless else finding
        verdict: Verdict = "pass" if harmless else "fail" if settings.require_gpu else "warn"
        return [
            Check("driver", verdict, finding, GPU_REMEDY if verdict == "fail" else None),
            *(Check("driver", "warn", note) for note in notes),
        ]
    first, torch, held = gpus.devices[0], read_torch_build(), read_usage(settings.state_dir)
    cuda = ".".join(map(str, first.cuda_driver or ())) or "?"
    names = ", ".join(device.name for device in gpus.devices)
    finding = Text(
        f"driver {first.driver}, CUDA up to {cuda}: {names}", f"驱动 {first.driver}，CUDA 至 {cuda}：{names}"
    )
    checks = [Check("driver", "pass", finding), *(Check("driver", "warn", note) for note in notes)]
    if shutil.which("docker") and not shutil.which("nvidia-ctk"):
        checks.append(Check("toolkit", "warn", TOOLKIT, TOOLKIT_REMEDY))
    usable = any(why_unusable(device, torch) is None for device in gpus.devices)
    for device in gpus.devices:
        checks.append(_capability(device, torch, "fail" if settings.require_gpu and not usable else "warn"))
        checks.append(_gpu_memory(device, held))
    return checks


def _capability(device: Device, torch: TorchBuild | None, bad: Verdict) -> Check:
    name = f"GPU {device.index} capability"
    if torch is None:
        return Check(name, "warn", NO_TORCH, NO_TORCH_REMEDY)
    if why := why_unusable(device, torch):
        return Check(name, bad, why, TORCH_REMEDY)
    has = ".".join(map(str, device.compute_capability or ())) or "?"
    return Check(name, "pass", Text(f"{has} is in torch {torch.version}", f"torch {torch.version} 支持 {has}"))


def _gpu_memory(device: Device, held: MemoryUsage) -> Check:
    name, own = f"GPU {device.index} memory", discounted(device, held)
    if in_use := memory_in_use(own):
        return Check(name, "warn", text(in_use), HELD_REMEDY)
    if own.free_bytes is None or own.total_bytes is None:
        return Check(name, "pass", Text("shares the host's memory", "与主机共享内存"))
    free, total = size(own.free_bytes), size(own.total_bytes)
    return Check(name, "pass", Text(f"{free} free of {total}", f"共 {total}，可用 {free}"))


def memory_checks(settings: Settings) -> list[Check]:
    """RAM and the container's limit."""
    held = read_usage(settings.state_dir)
    host = read_host(settings.hf_home, held.anonymous_bytes, held.namespace == pid_namespace())
    free, ram = size(host.available_bytes), size(host.ram_bytes)
    limit, limit_zh = "no container limit", "没有容器内存上限"
    if host.limit_bytes is not None:
        limit, limit_zh = f"container limit {size(host.limit_bytes)}", f"容器内存上限 {size(host.limit_bytes)}"
    finding = Text(f"{free} free of {ram} RAM, {limit}", f"内存 {ram}，可用 {free}，{limit_zh}")
    if host.available_bytes >= GIB:
        return [Check("memory", "pass", finding)]
    remedy = Text(
        "Give the container more (BERTH_MEMORY in .env) or end what holds the memory.",
        "请为容器提供更多内存（.env 中的 BERTH_MEMORY），或结束占用内存的进程。",
    )
    return [Check("memory", "warn", finding, remedy)]


def folder_checks(settings: Settings) -> list[Check]:
    """Write access to state, weights and run directory; nothing is left behind."""
    return [
        _writable("GLM_STATE_DIR", settings.state_dir, "fail"),
        _writable("HF_HOME", settings.hf_home, "warn"),
        _run_dir(),
    ]


def _writable(setting: str, folder: Path, bad: Verdict) -> Check:
    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        uid = os.geteuid()
        finding = Text(
            f"{folder} can't be written ({error.strerror}): {place} belongs to {owner(place)}, Berth runs as uid {uid}",
            f"{folder} 无法写入（{error.strerror}）：{place} 属于 {owner(place)}，Berth 以 uid {uid} 运行",
        )
        remedy = Text(
            f"Run `chown -R {uid} {place}` on the host, or set {setting} to a directory that uid {uid} can write.",
            f"请在主机上运行 `chown -R {uid} {place}`，或把 {setting} 设为 uid {uid} 可写的目录。",
        )
        return Check(setting, bad, finding, remedy)
    return Check(setting, "pass", Text(f"{folder} can be written", f"{folder} 可以写入"))


def _run_dir() -> Check:
    try:
        folder = make_run_dir()
    except (SettingsError, OSError) as error:
        remedy = Text(
            "Mount a tmpfs at /run/berth, or set TMPDIR to a short path that can be written.",
            "请在 /run/berth 挂载 tmpfs，或把 TMPDIR 设为可写的短路径。",
        )
        return Check("run directory", "fail", Text(str(error), str(error)), remedy)
    place = folder
    if folder != RUN_DIR:
        folder.rmdir()
        place = folder.parent
    return Check("run directory", "pass", Text(f"{place} can be written", f"{place} 可以写入"))


def port_checks(settings: Settings) -> list[Check]:
    """Whether the port is free, or held by the Berth that this state directory belongs to."""
    try:
        with contextlib.closing(bind(settings)):
            finding = Text(f"{settings.bind}:{settings.port} is free", f"{settings.bind}:{settings.port} 空闲")
            return [Check("port", "pass", finding)]
    except SettingsError as error:
        if is_running(settings.state_dir):
            finding = Text(
                f"{settings.port} is used by the Berth that runs here", f"{settings.port} 由正在运行的 Berth 使用"
            )
            return [Check("port", "pass", finding)]
        remedy = Text(
            "Stop what uses it, or set another GLM_PORT in .env.", "请停止占用它的程序，或在 .env 中设置其他 GLM_PORT。"
        )
        return [Check("port", "fail", Text(str(error), f"端口无法使用：{error}"), remedy)]


MACHINE: Sequence[Group] = (
    Group("driver", ANSWER_SECONDS + 10, gpu_checks),
    Group("memory", 10, memory_checks),
    Group("folders", 20, folder_checks),
    Group("port", 10, port_checks),
)
