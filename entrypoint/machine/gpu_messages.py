"""What there is to say of GPUs: why none is seen, why one is left out, what is odd about another. All with a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pynvml

from app.contract.plan import Device, Text
from entrypoint.units import GIB, size

HIDDEN = ("void", "none")
"""NVIDIA_VISIBLE_DEVICES with which the container toolkit gives a container no GPU."""
HELD_SHARE = 8
"""Memory that others hold is told from an eighth of the card on."""


def no_gpu(error: pynvml.NVMLError, environment: Mapping[str, str], root: Path) -> Text:
    """Why NVML could not be asked at all."""
    if isinstance(error, pynvml.NVMLError_LibraryNotFound):
        return _no_library(environment, root)
    if isinstance(error, pynvml.NVMLError_DriverNotLoaded):
        return Text(
            "The NVIDIA driver is not loaded: run nvidia-smi on the host.",
            "NVIDIA 驱动没有加载：请在主机上运行 nvidia-smi。",
        )
    if isinstance(error, pynvml.NVMLError_Timeout):
        return Text(
            "The NVIDIA driver does not answer: look into dmesg on the host, reset the GPU or reboot.",
            "NVIDIA 驱动没有响应：请查看主机的 dmesg，重置显卡或重启主机。",
        )
    if isinstance(error, pynvml.NVMLError_Unknown):
        return _unknown("The NVIDIA driver", "NVIDIA 驱动", error)
    if isinstance(error, pynvml.NVMLError_LibRmVersionMismatch):
        return Text(
            f"The NVIDIA driver was upgraded without a reboot ({_said(error)}): reboot the host.",
            f"NVIDIA 驱动升级后没有重启（{_said(error)}）：请重启主机。",
        )
    return Text(
        f"The NVIDIA driver answers: {_said(error)}. Run nvidia-smi on the host and in the container.",
        f"NVIDIA 驱动报错：{_said(error)}。请在主机和容器里分别运行 nvidia-smi 查看。",
    )


def _unknown(who: str, who_zh: str, error: pynvml.NVMLError) -> Text:
    """The answer in a container whose devices were taken away when systemd reloaded its units."""
    return Text(
        f"{who} answers {_said(error)}. A container that had its GPU lost it (systemd daemon-reload): recreate it.",
        f"{who_zh}报错 {_said(error)}。如果容器之前有显卡，说明它丢失了显卡（systemd daemon-reload）：请重新创建容器。",
    )


def _no_library(environment: Mapping[str, str], root: Path) -> Text:
    hidden = environment.get("NVIDIA_VISIBLE_DEVICES", "")
    if hidden in HIDDEN:
        return Text(
            f"NVIDIA_VISIBLE_DEVICES={hidden} keeps every GPU from this container: take it out, or name GPUs in it.",
            f"NVIDIA_VISIBLE_DEVICES={hidden} 使这个容器看不到任何显卡：请去掉它，或在其中写明显卡。",
        )
    if (root / "proc/driver/nvidia/version").exists():
        capabilities = environment.get("NVIDIA_DRIVER_CAPABILITIES", "utility")
        if not {"utility", "all"} & set(capabilities.split(",")):
            return Text(
                f"NVIDIA_DRIVER_CAPABILITIES={capabilities} must include utility: nothing can be measured without.",
                f"NVIDIA_DRIVER_CAPABILITIES={capabilities} 必须包含 utility：否则无法测量显卡。",
            )
        return Text(
            "The host has an NVIDIA driver, but this container was given no GPU: "
            "start with COMPOSE_FILE=compose.yaml:docker/compose.gpu.yaml (needs nvidia-container-toolkit).",
            "主机装有 NVIDIA 驱动，但没有把显卡交给这个容器："
            "请用 COMPOSE_FILE=compose.yaml:docker/compose.gpu.yaml 启动（需要 nvidia-container-toolkit）。",
        )
    return NO_DRIVER


NO_DRIVER = Text("No NVIDIA driver is visible here.", "这里看不到 NVIDIA 驱动。")
NO_DEVICE = Text("The NVIDIA driver sees no GPU.", "NVIDIA 驱动没有看到任何显卡。")


def left_out(index: int, error: pynvml.NVMLError) -> Text:
    """Why one GPU is not used though the driver counts it."""
    if isinstance(error, (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)):
        return Text(
            f"GPU {index} is left out: {_said(error)}. It fell off the bus (Xid 79?): "
            "look into dmesg on the host, reset the GPU or reboot.",
            f"不使用显卡 {index}：{_said(error)}。它已从总线掉线（Xid 79？）：请查看主机的 dmesg，重置显卡或重启主机。",
        )
    if isinstance(error, pynvml.NVMLError_NoPermission):
        return Text(
            f"GPU {index} is left out: it can't be read from here ({_said(error)}). If it is in MIG mode, give the "
            "container an instance by its MIG UUID (nvidia-smi -L lists them).",
            f"不使用显卡 {index}：在这里无法读取（{_said(error)}）。如果它处于 MIG 模式，"
            "请用 MIG UUID 把一个实例交给容器（nvidia-smi -L 可列出）。",
        )
    if isinstance(error, pynvml.NVMLError_Unknown):
        return _unknown(f"GPU {index} is left out: the driver", f"不使用显卡 {index}：驱动", error)
    return Text(
        f"GPU {index} is left out: the driver answers {_said(error)}. Run nvidia-smi on the host and in the container.",
        f"不使用显卡 {index}：驱动报错 {_said(error)}。请在主机和容器里分别运行 nvidia-smi 查看。",
    )


def lost(device: Device, now: Text | None, error: pynvml.NVMLError | None) -> Text:
    """Why a GPU that was there is not any more; `now` is what the probe says of it today."""
    if isinstance(error, pynvml.NVMLError_Unknown):
        return Text(
            f"Container lost its GPU (systemd daemon-reload): recreate it. The driver answers {_said(error)}.",
            f"容器丢失了显卡（systemd daemon-reload）：请重新创建容器。驱动报错 {_said(error)}。",
        )
    return now or Text(f"{device.name} is not there any more.", f"{device.name} 已经不在了。")


def _said(error: pynvml.NVMLError) -> str:
    return f'"{str(error).rstrip(".")}"'


def notes(devices: Sequence[Device], available_bytes: int) -> tuple[Text, ...]:
    """What a reader of the plan should know of the GPUs that are used."""
    said: list[Text] = []
    for device in devices:
        if device.unified:
            said.append(_unified(device, available_bytes))
        if (device.compute_capability or (8, 0)) < (8, 0):
            said.append(_no_bf16(device))
        if held := held_note(device):
            said.append(held)
    return tuple(said)


def _unified(device: Device, available_bytes: int) -> Text:
    return Text(
        f"GPU {device.index} has no memory of its own (unified memory): "
        f"planning with the {size(available_bytes)} of system RAM that are free.",
        f"显卡 {device.index} 没有独立显存（统一内存）：按系统可用内存 {size(available_bytes)} 计划。",
    )


def _no_bf16(device: Device) -> Text:
    capability = ".".join(map(str, device.compute_capability or ()))
    return Text(
        f"GPU {device.index} (compute capability {capability}) computes no bf16: 16 bits are float16 there, "
        "and grouped attention is steered past the kernel that stores all scores.",
        f"显卡 {device.index}（计算能力 {capability}）不支持 bf16：16 位使用 float16，注意力避开保存全部分数的内核。",
    )


def held_note(device: Device) -> Text | None:
    """How much of a card others hold, where it is far from nothing."""
    if device.total_bytes is None or device.free_bytes is None:
        return None
    held = device.total_bytes - device.reserved_bytes - device.free_bytes
    if held <= GIB or held * HELD_SHARE <= device.total_bytes:
        return None
    known = [holder.bytes for holder in device.holders if holder.bytes is not None]
    by, by_zh = "perhaps other containers", "也许是其他容器"
    if device.holders:
        count, taken = len(device.holders), f" with {size(sum(known))}" if known else ""
        by = f"the driver names {count} process{'es' if count > 1 else ''}{taken}"
        by_zh = f"驱动列出 {count} 个进程" + (f"，共 {size(sum(known))}" if known else "")
    total = size(device.total_bytes)
    return Text(
        f"{size(held)} of GPU {device.index}'s {total} is held by others ({by}).",
        f"显卡 {device.index} 的 {total} 中有 {size(held)} 被他人占用（{by_zh}）。",
    )
