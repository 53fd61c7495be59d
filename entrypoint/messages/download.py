"""Sentences about a download: why it stops, what it waits for, and what to do."""

from __future__ import annotations

from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons import download as reasons
from entrypoint.reasons.hub import HttpError
from entrypoint.units import size


@sentence.register
def _(reason: reasons.NoRoom) -> Sentence:
    need, free, short = size(reason.need_bytes), size(reason.free_bytes), size(reason.need_bytes - reason.free_bytes)
    return Sentence(
        f"The download needs {need} in {reason.folder}, {free} are free: {short} short.",
        f"下载需要在 {reason.folder} 中占用 {need}，可用 {free}，还差 {short}。",
    )


@sentence.register
def _(reason: reasons.DiskFull) -> Sentence:
    done, total = size(reason.done_bytes), size(reason.total_bytes)
    return Sentence(
        f"{reason.folder} could not be written after {done} of {total}: {reason.error}.",
        f"已下载 {done}，共 {total}，{reason.folder} 无法继续写入：{reason.error}。",
    )


@sentence.register
def _(reason: reasons.WrongHash) -> Sentence:
    return Sentence(
        f"{reason.file} of {reason.repo} had a wrong hash twice when downloaded from {reason.endpoint}; "
        "it was deleted and is not used.",
        f"{reason.repo} 的 {reason.file} 两次从 {reason.endpoint} 下载后校验值都不符，已删除，不会使用。",
    )


@sentence.register
def _(reason: reasons.DownloadCrashed) -> Sentence:
    code = reason.exit_code
    end, end_zh = (f"signal {-code}", f"信号 {-code}") if code < 0 else (f"exit code {code}", f"退出码 {code}")
    return Sentence(
        f"The download process ended {reason.deaths} times in a row without receiving any data (last: {end}).",
        f"下载进程连续 {reason.deaths} 次没有收到任何数据就退出（最后一次：{end_zh}）。",
    )


@sentence.register
def _(reason: reasons.ContactingHub) -> Sentence:
    return Sentence(f"Asking {reason.endpoint} for {reason.repo}.", f"正在向 {reason.endpoint} 查询 {reason.repo}。")


@sentence.register
def _(reason: reasons.ReadingHeaders) -> Sentence:
    return Sentence(
        f"Reading the headers of {reason.repo} at {reason.endpoint}: {reason.done} of {reason.total} files.",
        f"正在从 {reason.endpoint} 读取 {reason.repo} 的文件头：{reason.done} / {reason.total} 个文件。",
    )


@sentence.register
def _(reason: reasons.DownloadStalled) -> Sentence:
    done, total = size(reason.done_bytes), size(reason.total_bytes)
    state = Sentence("answers, but sends no data", "有响应，但没有发送数据")
    if reason.hub_error is not None:
        detail = sentence(reason.hub_error)
        state = Sentence(f"does not answer ({detail.en})", f"没有响应（{detail.zh}）")
        if isinstance(reason.hub_error, HttpError):
            state = Sentence(f"answers with an error ({detail.en})", f"返回错误（{detail.zh}）")
    return Sentence(
        f"No data for {reason.seconds:.0f} s at {done} of {total}: {reason.endpoint} {state.en}. "
        f"Retrying in {reason.retry_seconds:.0f} s.",
        f"已有 {reason.seconds:.0f} 秒没有收到数据（{done} / {total}）：{reason.endpoint} {state.zh}。"
        f"{reason.retry_seconds:.0f} 秒后重试。",
    )


@sentence.register
def _(reason: reasons.HashMismatch) -> Sentence:
    return Sentence(
        f"{reason.file} of {reason.repo} has a wrong hash; it was deleted and is downloaded again.",
        f"{reason.repo} 的 {reason.file} 校验值不符，已删除，正在重新下载。",
    )


@sentence.register
def _(reason: reasons.OtherDownload) -> Sentence:
    return Sentence(
        f"Another process is downloading {reason.file}; waiting for it.",
        f"另一个进程正在下载 {reason.file}，等待其完成。",
    )


@sentence.register
def _(_reason: reasons.MakeRoom) -> Sentence:
    return Sentence(
        "Free that much there, move HF_HOME to a larger disk, or choose a smaller model, such as:",
        "请在那里腾出空间，或把 HF_HOME 放到更大的磁盘上，或选择更小的模型，例如：",
    )


@sentence.register
def _(reason: reasons.MakeRoomAndRestart) -> Sentence:
    need = size(reason.need_bytes)
    return Sentence(
        f"Free {need} there and start again; the download resumes where it stopped.",
        f"请在那里腾出 {need} 后重新启动；下载会从中断处继续。",
    )


@sentence.register
def _(_reason: reasons.ReadLog) -> Sentence:
    return Sentence("See the log for details.", "详情请查看日志。")
