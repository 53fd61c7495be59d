"""Sentences of `doctor`: what its checks find, and their remedies."""

from __future__ import annotations

from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons import doctor as reasons
from entrypoint.units import size


@sentence.register
def _(reason: reasons.CheckTimedOut) -> Sentence:
    return Sentence(f"timed out after {reason.seconds:.0f} s", f"{reason.seconds:.0f} 秒内没有完成")


@sentence.register
def _(reason: reasons.CheckBroke) -> Sentence:
    return Sentence(f"the check itself failed: {reason.error}", f"检查本身出错：{reason.error}")


@sentence.register
def _(reason: reasons.DriverWorks) -> Sentence:
    gpus = ", ".join(reason.gpus)
    return Sentence(
        f"driver {reason.driver}, CUDA up to {reason.cuda}: {gpus}",
        f"驱动 {reason.driver}，最高支持 CUDA {reason.cuda}：{gpus}",
    )


@sentence.register
def _(_reason: reasons.ToolkitMissing) -> Sentence:
    return Sentence(
        "Docker is installed without nvidia-ctk: containers can't use the GPU.",
        "已安装 Docker，但没有 nvidia-ctk：容器无法使用显卡。",
    )


@sentence.register
def _(_reason: reasons.TorchUnknown) -> Sentence:
    return Sentence(
        "berth-torch.json is missing, so it is not known what torch supports",
        "缺少 berth-torch.json，不知道 torch 支持哪些显卡",
    )


@sentence.register
def _(reason: reasons.CapabilitySupported) -> Sentence:
    return Sentence(
        f"torch {reason.torch} supports {reason.capability}", f"torch {reason.torch} 支持 {reason.capability}"
    )


@sentence.register
def _(_reason: reasons.SharesHostMemory) -> Sentence:
    return Sentence("shares the host's memory", "与主机共享内存")


@sentence.register
def _(reason: reasons.GpuMemory) -> Sentence:
    free, total = size(reason.free_bytes), size(reason.total_bytes)
    return Sentence(f"{free} free of {total}", f"显存共 {total}，可用 {free}")


@sentence.register
def _(reason: reasons.HostMemory) -> Sentence:
    free, ram = size(reason.free_bytes), size(reason.ram_bytes)
    limit, limit_zh = "no container limit", "没有容器内存上限"
    if reason.limit_bytes is not None:
        limit, limit_zh = f"container limit {size(reason.limit_bytes)}", f"容器内存上限 {size(reason.limit_bytes)}"
    return Sentence(f"{free} free of {ram} RAM, {limit}", f"内存共 {ram}，可用 {free}，{limit_zh}")


@sentence.register
def _(reason: reasons.Writable) -> Sentence:
    return Sentence(f"{reason.folder} can be written", f"{reason.folder} 可以写入")


@sentence.register
def _(reason: reasons.PortFree) -> Sentence:
    return Sentence(f"{reason.bind}:{reason.port} is free", f"{reason.bind}:{reason.port} 空闲")


@sentence.register
def _(reason: reasons.PortUsedByBerth) -> Sentence:
    return Sentence(f"{reason.port} is used by the running Berth", f"{reason.port} 由正在运行的 Berth 使用")


@sentence.register
def _(reason: reasons.Versions) -> Sentence:
    return Sentence(f"installed: {', '.join(reason.packages)}", f"已安装：{'，'.join(reason.packages)}")


@sentence.register
def _(reason: reasons.BitsandbytesWorks) -> Sentence:
    return Sentence(f"native library {reason.library}", f"原生库 {reason.library}")


@sentence.register
def _(reason: reasons.BitsandbytesTimedOut) -> Sentence:
    return Sentence(f"the import timed out after {reason.seconds:.0f} s", f"导入 {reason.seconds:.0f} 秒后超时")


@sentence.register
def _(reason: reasons.BitsandbytesNotImportable) -> Sentence:
    return Sentence(f"can't be imported: {reason.error}", f"无法导入：{reason.error}")


@sentence.register
def _(reason: reasons.BitsandbytesNotLoaded) -> Sentence:
    return Sentence(f"the native library can't be loaded: {reason.error}", f"无法加载原生库：{reason.error}")


@sentence.register
def _(_reason: reasons.HubNotUsed) -> Sentence:
    return Sentence("not used: HF_HUB_OFFLINE=1", "不访问：HF_HUB_OFFLINE=1")


@sentence.register
def _(reason: reasons.HubAnswers) -> Sentence:
    return Sentence(f"{reason.endpoint} answers", f"{reason.endpoint} 有响应")


@sentence.register
def _(reason: reasons.ModelNotChecked) -> Sentence:
    return Sentence(
        f"{reason.model} is not on this machine, and the hub could not be reached",
        f"{reason.model} 不在这台机器上，且无法访问模型站点",
    )


@sentence.register
def _(reason: reasons.NothingToDownload) -> Sentence:
    free = size(reason.free_bytes)
    return Sentence(f"{free} free at HF_HOME; nothing to download", f"HF_HOME 处可用 {free}；无需下载")


@sentence.register
def _(reason: reasons.RoomForDownload) -> Sentence:
    free, need = size(reason.free_bytes), size(reason.need_bytes)
    return Sentence(f"{free} free at HF_HOME; the download needs {need}", f"HF_HOME 处可用 {free}；下载需要 {need}")


@sentence.register
def _(reason: reasons.ModelReadable) -> Sentence:
    millions = f"{reason.parameters / 1e6:,.1f}"
    return Sentence(f"{reason.model}: {millions} M parameters", f"{reason.model}：{millions} M 参数")


@sentence.register
def _(_reason: reasons.RunNvidiaSmi) -> Sentence:
    return Sentence(
        "Something on this machine hangs: check dmesg and run nvidia-smi on the host.",
        "这台机器上有部件卡住了：请在主机上查看 dmesg，并运行 nvidia-smi。",
    )


@sentence.register
def _(_reason: reasons.RunOnCpu) -> Sentence:
    return Sentence(
        "Set GLM_REQUIRE_GPU=0 in .env to run on the CPU.", "在 .env 中设 GLM_REQUIRE_GPU=0，即可在 CPU 上运行。"
    )


@sentence.register
def _(_reason: reasons.InstallToolkit) -> Sentence:
    return Sentence(
        "Install nvidia-container-toolkit, run `nvidia-ctk runtime configure --runtime=docker` and restart Docker.",
        "请安装 nvidia-container-toolkit，运行 `nvidia-ctk runtime configure --runtime=docker` 并重启 Docker。",
    )


@sentence.register
def _(_reason: reasons.UpdateDriverOrTorch) -> Sentence:
    return Sentence(
        "Update the driver, or use a PyTorch build that supports this GPU (image: TORCH=cuda).",
        "请更新驱动，或使用支持这块显卡的 PyTorch 版本（镜像：TORCH=cuda）。",
    )


@sentence.register
def _(_reason: reasons.FreeGpuMemory) -> Sentence:
    return Sentence(
        "End the processes that hold it; otherwise Berth uses what is left.",
        "请结束占用显存的进程；否则 Berth 只使用剩余的显存。",
    )


@sentence.register
def _(_reason: reasons.RaiseMemoryLimit) -> Sentence:
    return Sentence(
        "Give the container more memory (BERTH_MEMORY in .env), or end processes that hold it.",
        "请为容器提供更多内存（.env 中的 BERTH_MEMORY），或结束占用内存的进程。",
    )


@sentence.register
def _(_reason: reasons.MountRunDir) -> Sentence:
    return Sentence(
        "Mount a tmpfs at /run/berth, or set TMPDIR to a short path that can be written.",
        "请在 /run/berth 挂载 tmpfs，或把 TMPDIR 设为可写的短路径。",
    )


@sentence.register
def _(_reason: reasons.ChangePort) -> Sentence:
    return Sentence(
        "Stop the program that uses it, or set another GLM_PORT in .env.",
        "请停止占用它的程序，或在 .env 中设置其他 GLM_PORT。",
    )


@sentence.register
def _(_reason: reasons.Reinstall) -> Sentence:
    return Sentence("Run `make setup` again, or rebuild the image.", "请重新运行 `make setup`，或重新构建镜像。")


@sentence.register
def _(_reason: reasons.ReinstallBitsandbytes) -> Sentence:
    remedy = sentence(reasons.Reinstall())
    return Sentence(
        f"int8 and int4 may not work until this is fixed. {remedy.en}",
        f"修复之前 int8 和 int4 可能无法使用。{remedy.zh}",
    )
