"""The sentences of `entrypoint.reasons.machine`, each with its remedy."""

from __future__ import annotations

from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons import machine
from entrypoint.units import size


@sentence.register
def _no_driver(_reason: machine.NoDriver) -> Sentence:
    return Sentence("No NVIDIA driver is visible here.", "这里看不到 NVIDIA 驱动。")


@sentence.register
def _no_device(_reason: machine.NoDevice) -> Sentence:
    return Sentence("The NVIDIA driver sees no GPU.", "NVIDIA 驱动没有看到任何显卡。")


@sentence.register
def _driver_not_loaded(_reason: machine.DriverNotLoaded) -> Sentence:
    return Sentence(
        "The NVIDIA driver is not loaded: run nvidia-smi on the host.",
        "NVIDIA 驱动没有加载：请在主机上运行 nvidia-smi。",
    )


@sentence.register
def _driver_timed_out(_reason: machine.DriverTimedOut) -> Sentence:
    return Sentence(
        "The NVIDIA driver does not answer: check dmesg on the host, then reset the GPU or reboot.",
        "NVIDIA 驱动没有响应：请查看主机的 dmesg，然后重置显卡或重启主机。",
    )


@sentence.register
def _driver_mismatch(reason: machine.DriverMismatch) -> Sentence:
    return Sentence(
        f'The NVIDIA driver was upgraded without a reboot ("{reason.answer}"): reboot the host.',
        f'NVIDIA 驱动升级后没有重启（"{reason.answer}"）：请重启主机。',
    )


@sentence.register
def _driver_lost_gpus(reason: machine.DriverLostGpus) -> Sentence:
    return Sentence(
        f'The NVIDIA driver answers "{reason.answer}". If this container had a GPU, it has lost it '
        "(systemd daemon-reload): recreate the container.",
        f'NVIDIA 驱动报错 "{reason.answer}"。'
        "如果容器之前有显卡，说明它丢失了显卡（systemd daemon-reload）：请重新创建容器。",
    )


@sentence.register
def _driver_failed(reason: machine.DriverFailed) -> Sentence:
    return Sentence(
        f'The NVIDIA driver answers "{reason.answer}". Run nvidia-smi on the host and in the container.',
        f'NVIDIA 驱动报错 "{reason.answer}"。请在主机和容器里分别运行 nvidia-smi 查看。',
    )


@sentence.register
def _hidden_from_container(reason: machine.HiddenFromContainer) -> Sentence:
    return Sentence(
        f"NVIDIA_VISIBLE_DEVICES={reason.value} hides every GPU from this container: remove it, or set it to the GPUs.",
        f"NVIDIA_VISIBLE_DEVICES={reason.value} 使这个容器看不到任何显卡：请去掉它，或在其中写明显卡。",
    )


@sentence.register
def _utility_missing(reason: machine.UtilityMissing) -> Sentence:
    return Sentence(
        f"NVIDIA_DRIVER_CAPABILITIES={reason.capabilities} must include utility: without it no GPU can be measured.",
        f"NVIDIA_DRIVER_CAPABILITIES={reason.capabilities} 必须包含 utility：否则无法测量显卡。",
    )


@sentence.register
def _no_gpu_in_container(_reason: machine.NoGpuInContainer) -> Sentence:
    return Sentence(
        "The host has an NVIDIA driver, but this container has no GPU: "
        "start with COMPOSE_FILE=compose.yaml:docker/compose.gpu.yaml (needs nvidia-container-toolkit).",
        "主机装有 NVIDIA 驱动，但没有把显卡分配给这个容器："
        "请用 COMPOSE_FILE=compose.yaml:docker/compose.gpu.yaml 启动（需要 nvidia-container-toolkit）。",
    )


@sentence.register
def _gpu_off_bus(reason: machine.GpuOffBus) -> Sentence:
    return Sentence(
        f'GPU {reason.index} is not used: "{reason.answer}". It has fallen off the bus (Xid 79): '
        "check dmesg on the host, then reset the GPU or reboot.",
        f'不使用显卡 {reason.index}："{reason.answer}"。'
        "显卡掉线（Xid 79）：请查看主机的 dmesg，然后重置显卡或重启主机。",
    )


@sentence.register
def _gpu_not_permitted(reason: machine.GpuNotPermitted) -> Sentence:
    return Sentence(
        f'GPU {reason.index} is not used: it can\'t be read from here ("{reason.answer}"). If it is in MIG mode, give '
        "the container an instance by its MIG UUID (nvidia-smi -L lists them).",
        f'不使用显卡 {reason.index}：在这里无法读取（"{reason.answer}"）。如果它处于 MIG 模式，'
        "请用 MIG UUID 把一个实例分配给容器（nvidia-smi -L 可列出）。",
    )


@sentence.register
def _gpu_taken_away(reason: machine.GpuTakenAway) -> Sentence:
    return Sentence(
        f'GPU {reason.index} is not used: the driver answers "{reason.answer}". If this container had the GPU, it has '
        "lost it (systemd daemon-reload): recreate the container.",
        f'不使用显卡 {reason.index}：驱动报错 "{reason.answer}"。'
        "如果容器之前有这块显卡，说明它丢失了显卡（systemd daemon-reload）：请重新创建容器。",
    )


@sentence.register
def _gpu_failed(reason: machine.GpuFailed) -> Sentence:
    return Sentence(
        f'GPU {reason.index} is not used: the driver answers "{reason.answer}". '
        "Run nvidia-smi on the host and in the container.",
        f'不使用显卡 {reason.index}：驱动报错 "{reason.answer}"。请在主机和容器里分别运行 nvidia-smi 查看。',
    )


@sentence.register
def _container_lost_gpu(reason: machine.ContainerLostGpu) -> Sentence:
    return Sentence(
        f"The container has lost its GPU (systemd daemon-reload): recreate the container. "
        f'The driver answers "{reason.answer}".',
        f'容器丢失了显卡（systemd daemon-reload）：请重新创建容器。驱动报错 "{reason.answer}"。',
    )


@sentence.register
def _gpu_disappeared(reason: machine.GpuDisappeared) -> Sentence:
    return Sentence(f"{reason.name} is no longer there.", f"{reason.name} 已经不在了。")


@sentence.register
def _all_gpus_hidden(reason: machine.AllGpusHidden) -> Sentence:
    return Sentence(
        f"CUDA_VISIBLE_DEVICES={reason.value} hides every GPU: remove it from the environment and .env to use one.",
        f"CUDA_VISIBLE_DEVICES={reason.value} 隐藏了所有显卡：要使用显卡，请从环境变量和 .env 中去掉它。",
    )


@sentence.register
def _gpu_named_twice(reason: machine.GpuNamedTwice) -> Sentence:
    return Sentence(
        f"CUDA_VISIBLE_DEVICES={reason.value} names a GPU twice, so CUDA shows none: name each GPU once.",
        f"CUDA_VISIBLE_DEVICES={reason.value} 重复列出了同一块显卡，CUDA 因此不显示任何显卡：每块只写一次。",
    )


@sentence.register
def _no_gpu_named(reason: machine.NoGpuNamed) -> Sentence:
    uuids = ", ".join(reason.uuids)
    return Sentence(
        f"CUDA_VISIBLE_DEVICES={reason.value} matches none of: {uuids}.",
        f"CUDA_VISIBLE_DEVICES={reason.value} 与这些都不匹配：{uuids}。",
    )


@sentence.register
def _list_ends_early(reason: machine.ListEndsEarly) -> Sentence:
    return Sentence(
        f"CUDA_VISIBLE_DEVICES={reason.value}: there is no GPU {reason.entry!r}, and CUDA ignores everything after it.",
        f"CUDA_VISIBLE_DEVICES={reason.value}：没有显卡 {reason.entry!r}，CUDA 会忽略其后的内容。",
    )


@sentence.register
def _pci_order(reason: machine.PciOrder) -> Sentence:
    return Sentence(
        f"CUDA_VISIBLE_DEVICES={reason.value} counts in PCI order, as nvidia-smi does "
        "(Berth sets CUDA_DEVICE_ORDER=PCI_BUS_ID).",
        f"CUDA_VISIBLE_DEVICES={reason.value} 按 PCI 顺序计数，与 nvidia-smi 相同"
        "（Berth 设置了 CUDA_DEVICE_ORDER=PCI_BUS_ID）。",
    )


@sentence.register
def _unified_memory(reason: machine.UnifiedMemory) -> Sentence:
    free = size(reason.available_bytes)
    return Sentence(
        f"GPU {reason.index} has no memory of its own (unified memory): "
        f"the plan uses the {free} of system RAM that are free.",
        f"显卡 {reason.index} 没有独立显存（统一内存）：按系统可用内存 {free} 计划。",
    )


@sentence.register
def _no_bf16(reason: machine.NoBf16) -> Sentence:
    return Sentence(
        f"GPU {reason.index} (compute capability {reason.capability}) doesn't support bf16: Berth uses float16 and an "
        "attention kernel that doesn't store all scores.",
        f"显卡 {reason.index}（计算能力 {reason.capability}）不支持 bf16："
        "Berth 使用 float16，以及不保存全部注意力分数的内核。",
    )


@sentence.register
def _gpu_memory_in_use(reason: machine.GpuMemoryInUse) -> Sentence:
    by, by_zh = "perhaps by other containers", "可能是其他容器"
    if reason.processes:
        count, known = reason.processes, reason.process_bytes is not None
        taken = size(reason.process_bytes or 0)
        by = f"the driver lists {count} process{'es' if count > 1 else ''}{f' with {taken}' if known else ''}"
        by_zh = f"驱动列出 {count} 个进程{f'，共 {taken}' if known else ''}"
    used, total = size(reason.used_bytes), size(reason.total_bytes)
    return Sentence(
        f"Other processes use {used} of the {total} of GPU {reason.index} ({by}).",
        f"显卡 {reason.index} 的 {total} 显存中有 {used} 被其他进程占用（{by_zh}）。",
    )


@sentence.register
def _torch_without_cuda(reason: machine.TorchWithoutCuda) -> Sentence:
    return Sentence(
        f"torch {reason.version} is a CPU build; install the CUDA build to use {reason.device}",
        f"torch {reason.version} 是 CPU 版本；要使用 {reason.device}，请安装 CUDA 版本",
    )


@sentence.register
def _driver_too_old(reason: machine.DriverTooOld) -> Sentence:
    least = reason.least_driver
    return Sentence(
        f"driver {reason.driver} supports CUDA {reason.driver_cuda}; this torch needs {reason.torch_cuda}.x"
        + (f": driver {least} or newer" if least else ""),
        f"驱动 {reason.driver} 支持 CUDA {reason.driver_cuda}；当前 torch 需要 {reason.torch_cuda}.x"
        + (f"：请安装 {least} 或更新的驱动" if least else ""),
    )


@sentence.register
def _capability_not_built(reason: machine.CapabilityNotBuilt) -> Sentence:
    built = ", ".join(reason.built)
    return Sentence(
        f"compute capability {reason.capability} is not in torch {reason.version}, which is built for {built}"
        + ("; a build for an older CUDA may support it" if reason.is_older else ""),
        f"torch {reason.version} 不支持计算能力 {reason.capability}，只支持 {built}"
        + ("；较旧 CUDA 的版本可能支持" if reason.is_older else ""),
    )
