"""One check of the `doctor` command, and groups of them that run at once, each within its time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Literal

from app.contract.plan import Text
from entrypoint.settings.settings import Settings
from entrypoint.timeouts import start

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; what passes needs no remedy."""

    name: str
    verdict: Verdict
    finding: Text
    remedy: Text | None = None


@dataclass(frozen=True)
class Group:
    """Checks that share what they measure, and the time they may take together."""

    name: str
    seconds: float
    run: Callable[[Settings], Sequence[Check]]


def examine(settings: Settings, groups: Sequence[Group]) -> list[Check]:
    """All groups at once, each within its time: one that hangs or breaks is a check that failed, never the end."""
    started = [(group, start(functools.partial(group.run, settings))) for group in groups]
    return [check for group, future in started for check in _checks(group, future)]


def _checks(group: Group, future: Future[Sequence[Check]]) -> Sequence[Check]:
    if not wait([future], group.seconds).done:
        return [_too_slow(group)]
    if error := future.exception():  # whatever it is, the other checks are worth having
        broke = f"{type(error).__name__}: {error}"
        return [Check(group.name, "fail", Text(f"the check broke: {broke}", f"检查出错：{broke}"))]
    return future.result()


def _too_slow(group: Group) -> Check:
    finding = Text(f"timed out after {group.seconds:.0f} s", f"{group.seconds:.0f} 秒内没有完成")
    remedy = Text(
        "Something that this asks hangs: look into dmesg on the host and run nvidia-smi there.",
        "被检查的某个部分卡住了：请查看主机的 dmesg，并在主机上运行 nvidia-smi。",
    )
    return Check(group.name, "fail", finding, remedy)
