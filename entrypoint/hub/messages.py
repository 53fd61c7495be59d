"""What is said of the hub and of downloads, in English and Chinese, each with its numbers and the line to change."""

from __future__ import annotations

from pathlib import Path

from app.contract.plan import Refusal, Text
from entrypoint.hub.listing import PUBLIC_HUB, HubError, HubModel
from entrypoint.units import size

MIRROR = "https://hf-mirror.com"
"""Named where the public hub can't be reached; it is run by others and takes no part in a plan by itself."""
LATER = Text("Start again a little later.", "请稍后重新启动。")


def refusal(error: HubError, endpoint: str, model: HubModel, has_token: bool) -> Refusal:
    """Why a model can't be had, and the line of `.env` that would change it."""
    repo, revision = model.repo, model.revision
    why, detail = Text("", ""), error.detail
    remedy, line = LATER, None
    if error.kind in ("unreachable", "slow", "cut"):
        why = Text(
            f"{endpoint} does not answer ({detail}), where {repo} was looked for{_nor(model)}.",
            f"{endpoint} 没有响应（{detail}），无法查找 {repo}{_nor_zh(model)}。",
        )
        remedy, line = _other_endpoint(endpoint)
    elif error.kind == "unauthorised":
        why = _unauthorised(endpoint, model, has_token)
        remedy = Text(
            "Check the name, or give a token that may read it with this line in .env:",
            "请检查名称，或在 .env 中用这一行提供有读取权限的令牌：",
        )
        line = "HF_TOKEN=hf_..."
    elif error.kind == "gated":
        why, remedy, line = _gated(error, endpoint, repo)
    elif error.kind == "no_model":
        why = Text(
            f"{endpoint} knows no model {repo} ({detail}){_nor(model)}.",
            f"{endpoint} 上没有模型 {repo}（{detail}）{_nor_zh(model)}。",
        )
        remedy = Text("Correct this line in .env:", "请更正 .env 中的这一行：")
        line = "GLM_MODEL=zai-org/chatglm3-6b"
    elif error.kind == "no_revision":
        why = Text(
            f"{repo} has no revision {revision} at {endpoint}.", f"{endpoint} 上的 {repo} 没有修订版 {revision}。"
        )
        remedy, line = Text("Correct this line in .env:", "请更正 .env 中的这一行："), "GLM_REVISION=main"
    elif error.kind == "busy":
        why, remedy, line = _busy(error, endpoint, has_token)
    else:
        why = Text(f"{endpoint} answers with an error ({detail}).", f"{endpoint} 返回错误（{detail}）。")
        remedy, line = _other_endpoint(endpoint)
    return Refusal(why, remedy, line)


def _gated(error: HubError, endpoint: str, repo: str) -> tuple[Text, Text, str]:
    why = Text(
        f"{repo} is gated at {endpoint} ({error.detail}).", f"{endpoint} 上的 {repo} 需要授权（{error.detail}）。"
    )
    remedy = Text(
        f"Accept its terms at {endpoint}/{repo}, and give a token of that account with this line in .env:",
        f"请先在 {endpoint}/{repo} 接受条款，再在 .env 中用这一行提供该账号的令牌：",
    )
    return why, remedy, "HF_TOKEN=hf_..."


def _other_endpoint(endpoint: str) -> tuple[Text, str]:
    remedy = Text(
        "Check this machine's network, or name another endpoint with this line in .env:",
        "请检查这台机器的网络，或在 .env 中用这一行换一个地址：",
    )
    return remedy, f"HF_ENDPOINT={MIRROR if endpoint == PUBLIC_HUB else PUBLIC_HUB}"


def _nor(model: HubModel) -> str:
    return "".join(f", and there is no folder {place}" for place in model.looked_in)


def _nor_zh(model: HubModel) -> str:
    return "".join(f"，也没有文件夹 {place}" for place in model.looked_in)


def _unauthorised(endpoint: str, model: HubModel, has_token: bool) -> Text:
    repo = model.repo
    if has_token:
        return Text(
            f"{endpoint} does not let this HF_TOKEN read {repo} (HTTP 401).",
            f"{endpoint} 不允许当前的 HF_TOKEN 读取 {repo}（HTTP 401）。",
        )
    return Text(
        f"{endpoint} says 401 to {repo}: there is no such model, or it is private and HF_TOKEN is not set"
        f"{_nor(model)}.",
        f"{endpoint} 对 {repo} 返回 401：没有这个模型，或它是私有的而 HF_TOKEN 没有设置{_nor_zh(model)}。",
    )


def _busy(error: HubError, endpoint: str, has_token: bool) -> tuple[Text, Text, str | None]:
    seconds = error.retry_after_seconds
    wait = f", and asks for {seconds:.0f} s of patience" if seconds else ""
    wait_zh = f"，要求等待 {seconds:.0f} 秒" if seconds else ""
    why = Text(
        f"{endpoint} takes no more requests from here for now (HTTP 429){wait}.",
        f"{endpoint} 暂时不再接受这里的请求（HTTP 429）{wait_zh}。",
    )
    if has_token:
        return why, LATER, None
    remedy = Text(
        "Start again later, or give a token, which allows more, with this line in .env:",
        "请稍后重新启动，或在 .env 中用这一行提供令牌以提高限额：",
    )
    return why, remedy, "HF_TOKEN=hf_..."


def offline(repo: str, missing: str, folder: Path) -> Refusal:
    """The cache alone is asked, and it is not enough."""
    return Refusal(
        why=Text(
            f"HF_HUB_OFFLINE=1, and {repo} is not whole in the cache: {missing} is missing in {folder}.",
            f"HF_HUB_OFFLINE=1，而缓存中的 {repo} 不完整：{folder} 中缺少 {missing}。",
        ),
        remedy=Text("Allow the download with this line in .env:", "请在 .env 中用这一行允许下载："),
        env_line="HF_HUB_OFFLINE=0",
    )


def disk_short(folder: Path, need: int, free: int) -> Refusal:
    """There is not enough room for what is still to come."""
    return Refusal(
        why=Text(
            f"The download needs {size(need)} in {folder}, {size(free)} are free: {size(need - free)} short.",
            f"下载需要在 {folder} 中占用 {size(need)}，可用 {size(free)}：差 {size(need - free)}。",
        ),
        remedy=Text(
            "Free that much there, or give HF_HOME a larger disk, or take a smaller model, such as:",
            "请在那里腾出空间，或把 HF_HOME 放到更大的磁盘上，或选择更小的模型，例如：",
        ),
        env_line="GLM_MODEL=demo",
    )


def disk_full(folder: Path, done: int, total: int, reason: str) -> Refusal:
    """The disk filled up while the bytes came."""
    return Refusal(
        why=Text(
            f"{folder} took no more bytes at {size(done)} of {size(total)}: {reason}.",
            f"已下载 {size(done)}，共 {size(total)}，{folder} 无法继续写入：{reason}。",
        ),
        remedy=Text(
            f"Free {size(total - done)} there and start again; what is there is kept and continued.",
            f"请在那里腾出 {size(total - done)} 后重新启动；已下载的部分会保留并继续。",
        ),
        env_line=None,
    )


def unwritable(folder: Path, reason: str, owner: int, uid: int) -> Refusal:
    """The cache can't be written by this user."""
    return Refusal(
        why=Text(
            f"{folder} can't be written ({reason}): it belongs to uid {owner} and Berth runs as uid {uid}.",
            f"无法写入 {folder}（{reason}）：它属于 uid {owner}，而 Berth 以 uid {uid} 运行。",
        ),
        remedy=Text(
            f"Run `chown -R {uid} {folder}` on the host, or set HF_HOME to a folder that uid {uid} can write.",
            f"请在主机上运行 `chown -R {uid} {folder}`，或把 HF_HOME 设为 uid {uid} 可写的文件夹。",
        ),
        env_line=None,
    )


def wrong_hash(name: str, repo: str, endpoint: str) -> Refusal:
    """A file came twice with other bytes than the hub says."""
    return Refusal(
        why=Text(
            f"{name} of {repo} arrived twice with a wrong hash from {endpoint}; it was deleted and is not used.",
            f"{repo} 的 {name} 两次从 {endpoint} 下载后校验值都不符，已删除，不会使用。",
        ),
        remedy=_other_endpoint(endpoint)[0],
        env_line=_other_endpoint(endpoint)[1],
    )


def download_crashed(deaths: int, exit_code: int) -> Refusal:
    """The process that downloads ended again and again without bringing a byte."""
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return Refusal(
        why=Text(
            f"The download ended {deaths} times in a row without bringing a byte (last: {how}).",
            f"下载进程连续 {deaths} 次在没有取得任何数据时结束（最后一次：{how}）。",
        ),
        remedy=Text("The log says more.", "详情请查看日志。"),
        env_line=None,
    )


def reading_headers(repo: str, endpoint: str, done: int, total: int) -> Text:
    """What the plan waits for."""
    if not total:
        return Text(f"Asking {endpoint} for {repo}.", f"正在向 {endpoint} 查询 {repo}。")
    return Text(
        f"Reading the headers of {repo} at {endpoint}: {done} of {total} files.",
        f"正在从 {endpoint} 读取 {repo} 的文件头：{done} / {total} 个文件。",
    )


def stalled(seconds: float, done: int, total: int, endpoint: str, error: HubError | None, retry_seconds: float) -> Text:
    """No byte comes; `error` is what the endpoint itself says when it is asked now, None where it answers."""
    at, at_zh = f"{size(done)} of {size(total)}", f"{size(done)} / {size(total)}"
    state, state_zh = "answers, the file's bytes do not come", "有响应，但文件数据没有到达"
    if error and error.status:
        state, state_zh = f"answers with an error ({error.detail})", f"返回错误（{error.detail}）"
    elif error:
        state, state_zh = f"does not answer ({error.detail})", f"没有响应（{error.detail}）"
    return Text(
        f"No byte for {seconds:.0f} s at {at}: {endpoint} {state}. Retrying in {retry_seconds:.0f} s.",
        f"已有 {seconds:.0f} 秒没有收到数据（{at_zh}）：{endpoint} {state_zh}。{retry_seconds:.0f} 秒后重试。",
    )


def mismatch(name: str, repo: str) -> Text:
    """A file is fetched a second time."""
    return Text(
        f"{name} of {repo} has a wrong hash; it was deleted and is fetched again.",
        f"{repo} 的 {name} 校验值不符，已删除，正在重新下载。",
    )


def another_downloads(name: str) -> Text:
    """Somebody else holds the partial file."""
    return Text(f"Another process is downloading {name}; waiting for it.", f"另一个进程正在下载 {name}，等待其完成。")
