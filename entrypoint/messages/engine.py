"""The sentences of `entrypoint.reasons.engine`."""

from __future__ import annotations

from app.contract.status import Phase
from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons import engine
from entrypoint.units import size


def _when(phase: Phase) -> Sentence:
    if phase == "ready":
        return Sentence("in service", "服务过程中")
    if phase == "proving":
        return Sentence("during the memory proof", "内存验证时")
    return Sentence("while loading", "加载时")


@sentence.register
def _killed_for_memory(reason: engine.KilledForMemory) -> Sentence:
    when = _when(reason.phase)
    figures = [("limit", "上限", reason.limit_bytes), ("peak", "峰值", reason.peak_bytes)]
    en = "".join(f", {name} {size(count)}" for name, _, count in figures if count)
    zh = "".join(f"，{name} {size(count)}" for _, name, count in figures if count)
    return Sentence(
        f"The kernel killed the model process {when.en} because memory ran out (out of memory{en}).",
        f"{when.zh}内存不足，模型进程被内核终止（OOM{zh}）。",
    )


@sentence.register
def _out_of_memory(reason: engine.EngineOutOfMemory) -> Sentence:
    when = _when(reason.phase)
    return Sentence(
        f"The model process ran out of memory {when.en}: {reason.message}",
        f"{when.zh}模型进程内存不足：{reason.message}",
    )


@sentence.register
def _hung(reason: engine.EngineHung) -> Sentence:
    when = _when(reason.phase)
    return Sentence(
        f"The model process hung {when.en}: it made no step for {reason.seconds:.0f} s and was killed.",
        f"{when.zh}模型进程卡死：{reason.seconds:.0f} 秒内没有任何进展，已被终止。",
    )


@sentence.register
def _cuda_unusable(reason: engine.CudaUnusable) -> Sentence:
    return Sentence(
        f"The driver shows the GPU, but PyTorch can't use it: {reason.message}.",
        f"驱动能看到显卡，但 PyTorch 无法使用：{reason.message}。",
    )


@sentence.register
def _killed_by_signal(reason: engine.KilledBySignal) -> Sentence:
    when = _when(reason.phase)
    return Sentence(
        f"The model process was ended {when.en} by {reason.signal}, not because memory ran out.",
        f"{when.zh}模型进程被信号 {reason.signal} 终止，不是因为内存不足。",
    )


@sentence.register
def _checkpoint_unusable(reason: engine.CheckpointUnusable) -> Sentence:
    return Sentence(f"The checkpoint can't be served: {reason.message}", f"无法使用这个模型：{reason.message}")


@sentence.register
def _failed(reason: engine.EngineFailed) -> Sentence:
    when = _when(reason.phase)
    code = reason.exit_code
    return Sentence(
        f"The model process failed {when.en}: {reason.message or f'exit code {code}; see the log above'}",
        f"{when.zh}模型进程出错：{reason.message or f'退出码 {code}；详见上方日志'}",
    )


@sentence.register
def _give_more_memory(_reason: engine.GiveMoreMemory) -> Sentence:
    return Sentence(
        "Give the container more memory, or reduce the need with GLM_PRECISION=int4 or a smaller GLM_MAX_MODEL_LEN in "
        ".env.",
        "请为容器提供更多内存，或在 .env 中用 GLM_PRECISION=int4 或更小的 GLM_MAX_MODEL_LEN 减少需求。",
    )


@sentence.register
def _copy_checkpoint_again(_reason: engine.CopyCheckpointAgain) -> Sentence:
    return Sentence(
        "Copy the checkpoint again, or set another GLM_MODEL in .env.",
        "请重新复制模型文件，或在 .env 中设置另一个 GLM_MODEL。",
    )


@sentence.register
def _restarts_by_itself(_reason: engine.RestartsByItself) -> Sentence:
    return Sentence(
        "It restarts by itself. If this happens again, check the host for swapping and for a failing GPU driver.",
        "模型进程会自动重启。如果再次发生，请检查主机是否在大量换页，或显卡驱动是否异常。",
    )


@sentence.register
def _see_the_log(_reason: engine.SeeTheLog) -> Sentence:
    return Sentence("See the log.", "请查看日志。")


@sentence.register
def _loading_stalled(reason: engine.LoadingStalled) -> Sentence:
    done, total = size(reason.done_bytes), size(reason.total_bytes)
    return Sentence(
        f"No data read for {reason.seconds} s ({done} of {total} done); the disk or volume with the model is not "
        "responding. Loading resumes by itself.",
        f"已有 {reason.seconds} 秒没有读到数据（已读 {done} / {total}）："
        "存放模型的磁盘或网络卷没有响应，恢复后会自动继续加载。",
    )
