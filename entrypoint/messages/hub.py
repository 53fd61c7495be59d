"""Sentences about the model hub: how a request ended, why a model can't be had, and what to do."""

from __future__ import annotations

from entrypoint.messages.phrases import spaced
from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons import hub as reasons


@sentence.register
def _(reason: reasons.HttpError) -> Sentence:
    return Sentence(f"HTTP {reason.status}", f"HTTP {reason.status} 错误")


@sentence.register
def _(reason: reasons.TimedOut) -> Sentence:
    return Sentence(f"timed out after {reason.seconds:.0f} s", f"{reason.seconds:.0f} 秒后超时")


@sentence.register
def _(reason: reasons.NoData) -> Sentence:
    return Sentence(f"no data for {reason.seconds:.0f} s", f"{reason.seconds:.0f} 秒没有数据")


@sentence.register
def _(reason: reasons.NoConnection) -> Sentence:
    error, error_zh = (f": {reason.error}", f"：{reason.error}") if reason.error else ("", "")
    return Sentence(f"no connection{error}", f"无法连接{error_zh}")


@sentence.register
def _(_reason: reasons.ConnectionLost) -> Sentence:
    return Sentence("the connection was lost", "连接中断")


@sentence.register
def _(_reason: reasons.BadProxy) -> Sentence:
    return Sentence(
        "the proxy in HTTPS_PROXY or ALL_PROXY can't be used; give an http:// address",
        "HTTPS_PROXY 或 ALL_PROXY 中的代理无法使用；请填写 http:// 地址",
    )


@sentence.register
def _(reason: reasons.RequestFailed) -> Sentence:
    return Sentence(f"the request failed: {reason.error}", f"请求失败：{reason.error}")


@sentence.register
def _(reason: reasons.FileTooShort) -> Sentence:
    return Sentence(
        f"{reason.file} ended after {reason.received_bytes:,} of {reason.size_bytes:,} bytes",
        f"{reason.file} 应有 {reason.size_bytes:,} 字节，只收到 {reason.received_bytes:,} 字节",
    )


@sentence.register
def _(reason: reasons.HubUnreachable) -> Sentence:
    detail = sentence(reason.detail)
    return Sentence(
        f"{reason.endpoint} does not answer ({detail.en}), so {reason.repo} can't be downloaded"
        f"{_no_folders(reason.folders).en}.",
        f"{reason.endpoint} 没有响应（{detail.zh}），无法下载 {reason.repo}{_no_folders(reason.folders).zh}。",
    )


@sentence.register
def _(reason: reasons.HubFailed) -> Sentence:
    detail = sentence(reason.detail)
    return Sentence(
        f"{reason.endpoint} answers with an error ({detail.en}).", f"{reason.endpoint} 返回错误（{detail.zh}）。"
    )


@sentence.register
def _(reason: reasons.TokenRefused) -> Sentence:
    return Sentence(
        f"{reason.endpoint} does not allow this HF_TOKEN to read {reason.repo} (HTTP 401).",
        f"{reason.endpoint} 不允许当前的 HF_TOKEN 读取 {reason.repo}（HTTP 401）。",
    )


@sentence.register
def _(reason: reasons.TokenMissing) -> Sentence:
    return Sentence(
        f"{reason.endpoint} answers HTTP 401 for {reason.repo}: the model does not exist, or it is private and "
        f"HF_TOKEN is not set{_no_folders(reason.folders).en}.",
        f"{reason.endpoint} 对 {reason.repo} 返回 HTTP 401：模型不存在，或者它是私有的而没有设置 HF_TOKEN"
        f"{_no_folders(reason.folders).zh}。",
    )


@sentence.register
def _(reason: reasons.ModelGated) -> Sentence:
    detail = sentence(reason.detail)
    return Sentence(
        f"{reason.repo} is gated at {reason.endpoint} ({detail.en}).",
        f"{reason.endpoint} 上的 {reason.repo} 需要授权（{detail.zh}）。",
    )


@sentence.register
def _(reason: reasons.ModelNotFound) -> Sentence:
    detail = sentence(reason.detail)
    return Sentence(
        f"{reason.endpoint} has no model {reason.repo} ({detail.en}){_no_folders(reason.folders).en}.",
        f"{reason.endpoint} 上没有模型 {reason.repo}（{detail.zh}）{_no_folders(reason.folders).zh}。",
    )


@sentence.register
def _(reason: reasons.RevisionNotFound) -> Sentence:
    return Sentence(
        f"{reason.repo} has no revision {reason.revision} at {reason.endpoint}.",
        f"{reason.endpoint} 上的 {reason.repo} 没有版本 {reason.revision}。",
    )


@sentence.register
def _(reason: reasons.RateLimited) -> Sentence:
    seconds = reason.retry_after_seconds
    retry, retry_zh = (f"; retry in {seconds:.0f} s", f"；请在 {seconds:.0f} 秒后重试") if seconds else ("", "")
    return Sentence(
        f"{reason.endpoint} accepts no more requests for now (HTTP 429){retry}.",
        f"{reason.endpoint} 暂时不再接受请求（HTTP 429）{retry_zh}。",
    )


@sentence.register
def _(reason: reasons.NotCached) -> Sentence:
    missing = sentence(reason.missing)
    return Sentence(
        f"HF_HUB_OFFLINE=1, but the cache has no complete copy of {reason.repo}: {missing.en} is missing in "
        f"{reason.folder}.",
        spaced(f"HF_HUB_OFFLINE=1，但缓存中的 {reason.repo} 不完整：{reason.folder} 中缺少", missing.zh, "。"),
    )


@sentence.register
def _(reason: reasons.RevisionMissing) -> Sentence:
    return Sentence(f"revision {reason.revision}", f"版本 {reason.revision}")


@sentence.register
def _(reason: reasons.FileMissing) -> Sentence:
    return Sentence(f"file {' or '.join(reason.names)}", f"文件 {' 或 '.join(reason.names)}")


@sentence.register
def _(_reason: reasons.ChangeEndpoint) -> Sentence:
    return Sentence(
        "Check this machine's network, or use another endpoint with this line in .env:",
        "请检查这台机器的网络，或在 .env 中用这一行更换地址：",
    )


@sentence.register
def _(_reason: reasons.CheckNameOrToken) -> Sentence:
    return Sentence(
        "Check the name, or set a token that can read the model with this line in .env:",
        "请检查名称，或在 .env 中用这一行设置有读取权限的 token：",
    )


@sentence.register
def _(reason: reasons.AcceptTerms) -> Sentence:
    return Sentence(
        f"Accept the terms at {reason.page}, then set a token of that account with this line in .env:",
        f"请先在 {reason.page} 接受条款，再在 .env 中用这一行设置该账号的 token：",
    )


@sentence.register
def _(_reason: reasons.CorrectLine) -> Sentence:
    return Sentence("Correct this line in .env:", "请更正 .env 中的这一行：")


@sentence.register
def _(_reason: reasons.RetryLater) -> Sentence:
    return Sentence("Start again later.", "请稍后重新启动。")


@sentence.register
def _(_reason: reasons.RetryLaterOrSetToken) -> Sentence:
    return Sentence(
        "Start again later, or set a token, which raises the limit, with this line in .env:",
        "请稍后重新启动，或在 .env 中用这一行设置 token 以提高限额：",
    )


@sentence.register
def _(_reason: reasons.AllowDownload) -> Sentence:
    return Sentence("Allow the download with this line in .env:", "请在 .env 中用这一行允许下载：")


def _no_folders(folders: tuple[str, ...]) -> Sentence:
    return Sentence(
        "".join(f", and there is no folder {folder}" for folder in folders),
        "".join(f"，也没有文件夹 {folder}" for folder in folders),
    )
