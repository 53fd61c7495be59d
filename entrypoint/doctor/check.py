"""One check of the `doctor` command, and groups of checks that run in parallel, each with a time limit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Literal

from app.contract.plan import Text
from entrypoint.messages.sentence import text
from entrypoint.reasons.doctor import CheckBroke, CheckTimedOut, RunNvidiaSmi
from entrypoint.reasons.reason import Reason
from entrypoint.settings.settings import Settings
from entrypoint.timeouts import start

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The result of one check; one that passes needs no remedy."""

    name: str
    verdict: Verdict
    finding: Text
    remedy: Text | None = None


@dataclass(frozen=True)
class CheckGroup:
    """Checks that share their measurements and a time limit."""

    name: str
    seconds: float
    run: Callable[[Settings], Sequence[Check]]


def check(name: str, verdict: Verdict, finding: Reason, remedy: Reason | None = None) -> Check:
    """A check from its reasons."""
    return Check(name, verdict, text(finding), text(remedy) if remedy else None)


def appended(finding: Text, end: Text) -> Text:
    """The same finding with more words at its end."""
    return replace(finding, en=finding.en + end.en, zh=finding.zh + end.zh)


def examine(settings: Settings, groups: Sequence[CheckGroup]) -> list[Check]:
    """Runs all groups in parallel; a group that hangs or raises is one failed check, and the others go on."""
    futures = [(group, start(functools.partial(group.run, settings))) for group in groups]
    return [result for group, future in futures for result in _results(group, future)]


def _results(group: CheckGroup, future: Future[Sequence[Check]]) -> Sequence[Check]:
    if not wait([future], group.seconds).done:
        return [check(group.name, "fail", CheckTimedOut(group.seconds), RunNvidiaSmi())]
    if error := future.exception():  # whatever it is, the other checks are worth having
        return [check(group.name, "fail", CheckBroke(f"{type(error).__name__}: {error}"))]
    return future.result()
