"""When the engine dies: what killed it, and what to do next. Pure functions."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from app.contract.exits import ENGINE_BAD_CHECKPOINT, ENGINE_OUT_OF_MEMORY, ENGINE_SELF_TEST
from app.contract.plan import Refusal, Text
from app.contract.status import Death, DeathCause, EngineDown, Phase
from entrypoint.units import size

MEMORY_CAUSES: tuple[DeathCause, ...] = ("out_of_memory", "killed_by_kernel_oom")


@dataclass(frozen=True)
class Facts:
    """What is known about a death."""

    at: float
    phase: Phase
    """The engine's phase: loading, proving or ready."""
    exit_code: int
    """Negative for a signal."""
    account: EngineDown | None
    """What the engine said before it went."""
    oom_kills: int
    """Processes that the kernel killed for lack of memory since the engine started."""
    limit_bytes: int | None
    peak_bytes: int | None
    gpu_lost: Text | None = None
    """What the driver says of a GPU that the engine ran on and that is not there any more."""
    silent_seconds: float | None = None
    """How long the engine had made no step when it was killed for that."""


def certify(facts: Facts) -> Death:
    """Names the killer."""
    cause = _cause(facts)
    why, remedy = _account(cause, facts)
    return Death(
        at=facts.at,
        cause=cause,
        phase=facts.phase,
        exit_code=facts.exit_code if facts.exit_code >= 0 else None,
        signal=-facts.exit_code if facts.exit_code < 0 else None,
        why=why,
        remedy=remedy,
        limit_bytes=facts.limit_bytes,
        peak_bytes=facts.peak_bytes,
    )


def _cause(facts: Facts) -> DeathCause:
    if facts.gpu_lost is not None:
        return "gpu_lost"
    if facts.silent_seconds is not None:
        return "hung"
    if facts.account is not None:
        return facts.account.cause
    if facts.exit_code == -signal.SIGKILL and facts.oom_kills > 0:
        return "killed_by_kernel_oom"
    if facts.exit_code < 0:
        return "killed_by_signal"
    by_code: dict[int, DeathCause] = {
        ENGINE_OUT_OF_MEMORY: "out_of_memory",
        ENGINE_BAD_CHECKPOINT: "bad_checkpoint",
        ENGINE_SELF_TEST: "self_test",
    }
    return by_code.get(facts.exit_code, "crashed")


MORE_MEMORY = Text(
    "Give the container more memory, or ask for less with GLM_PRECISION=int4 or a smaller GLM_MAX_MODEL_LEN in .env.",
    "请为容器提供更多内存，或在 .env 中用 GLM_PRECISION=int4 或更小的 GLM_MAX_MODEL_LEN 减少需求。",
)
WHILE = {
    "loading": Text("while loading", "加载模型时"),
    "proving": Text("during the memory proof", "内存验证时"),
    "ready": Text("in service", "服务过程中"),
}


def _account(cause: DeathCause, facts: Facts) -> tuple[Text, Text | None]:
    said = facts.account.message if facts.account else ""
    when = WHILE.get(facts.phase, WHILE["loading"])
    if cause == "killed_by_kernel_oom":
        limit = f", limit {size(facts.limit_bytes)}" if facts.limit_bytes else ""
        peak = f", peak {size(facts.peak_bytes)}" if facts.peak_bytes else ""
        limit_zh = f"，上限 {size(facts.limit_bytes)}" if facts.limit_bytes else ""
        peak_zh = f"，峰值 {size(facts.peak_bytes)}" if facts.peak_bytes else ""
        return Text(
            f"The kernel killed the engine {when.en} for lack of memory (out of memory{limit}{peak}).",
            f"{when.zh}内存不足，引擎被内核终止（OOM{limit_zh}{peak_zh}）。",
        ), MORE_MEMORY
    if cause == "out_of_memory":
        return Text(f"The engine ran out of memory {when.en}: {said}", f"{when.zh}引擎内存不足：{said}"), MORE_MEMORY
    if cause == "gpu_lost" and facts.gpu_lost is not None:
        return facts.gpu_lost, None
    if facts.silent_seconds is not None:
        return _hung(facts.silent_seconds, when)
    if cause == "no_cuda":
        return Text(
            f"The driver shows the GPU, but PyTorch can't use it: {said}.",
            f"驱动能看到显卡，但 PyTorch 无法使用：{said}。",
        ), None
    if cause == "killed_by_signal":
        name = _signal_name(-facts.exit_code)
        return Text(
            f"The engine was ended {when.en} by {name}, not for lack of memory.",
            f"{when.zh}引擎被信号 {name} 终止，不是因为内存不足。",
        ), None
    if cause in ("bad_checkpoint", "self_test"):
        again = Text(
            "Copy the checkpoint again, or set another GLM_MODEL in .env.",
            "请重新复制模型文件，或在 .env 中设置另一个 GLM_MODEL。",
        )
        return Text(f"The checkpoint can't be served: {said}", f"无法使用这个模型：{said}"), again
    said = said or f"exit code {facts.exit_code}; the log above says more"
    return Text(f"The engine failed {when.en}: {said}", f"{when.zh}引擎出错：{said}"), None


def _hung(seconds: float, when: Text) -> tuple[Text, Text]:
    return Text(
        f"The engine hung {when.en}: it made no step for {seconds:.0f} s and was killed.",
        f"{when.zh}引擎卡死：{seconds:.0f} 秒内没有任何进展，已被终止。",
    ), Text(
        "It is started again by itself. If this happens again, look for swapping and a failing GPU driver on the host.",
        "引擎会自动重启。如果再次发生，请检查主机是否在大量换页，或显卡驱动是否异常。",
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def final_refusal(death: Death, automatic: bool) -> Refusal:
    """What the page says when no further attempt is made."""
    remedy = death.remedy or Text("See the log.", "请查看日志。")
    line = "GLM_PRECISION=auto" if death.cause in MEMORY_CAUSES and not automatic else None
    return Refusal(why=death.why, remedy=remedy, env_line=line)
