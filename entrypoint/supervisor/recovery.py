"""How and when the engine is started again after a death, given those before it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from app.contract.plan import Plan, Precision, Rung, Text
from app.contract.status import Death
from entrypoint.plan.inputs import FailedRung
from entrypoint.state.ledger import fewer_slots, never_again
from entrypoint.supervisor.death import MEMORY_CAUSES

WINDOW_SECONDS = 600
"""Deaths for lack of memory in service are counted over this time."""
MOST_MEMORY_DEATHS = 3
LONGEST_BACKOFF_SECONDS = 60


MEMORY_WAIT_SECONDS = 10.0
"""How long to wait for the memory of a dead engine to be free again."""
RECOVERED_SHARE = 0.9
"""Of what was free at the last plan: if this share is free again, the wait is over."""


@dataclass
class Recovery:
    """What is known about earlier deaths. Times are seconds of the caller's monotonic clock."""

    automatic: bool
    """Whether Berth chooses the precision."""
    automatic_slots: bool = True
    """Whether Berth chooses how many requests run at once."""
    failed_rungs: tuple[FailedRung, ...] = ()
    only: tuple[Precision, tuple[str, ...]] | None = None
    unusable: dict[str, Text] = field(default_factory=dict)
    """By UUID, why the engine could not use a GPU that the driver shows."""
    wanted_free_bytes: int = 0
    deadline: float = 0.0
    crashes: int = 0
    memory_deaths: tuple[float, ...] = ()

    def served(self) -> None:
        """The engine is ready: the count of crashes in a row starts again."""
        self.crashes = 0

    def after(self, death: Death, rung: Rung, now: float) -> RecoveryAction:
        """Takes a death into account; returns what to do about it."""
        lacked_memory = death.cause in MEMORY_CAUSES
        if not lacked_memory:
            self.crashes += 1
        elif death.phase == "ready":
            self._count_memory_death(now)
        fewer = self.automatic_slots and rung.max_num_seqs > 1
        if death.phase == "proving":
            fewer = fewer and not any(failed.max_num_seqs and _same(failed, rung) for failed in self.failed_rungs)
        action = recovery_action(death, self.automatic, len(self.memory_deaths), self.crashes, fewer)
        if action.kind == "lower":
            self._exclude(rung)
        elif action.kind == "fewer":
            self.failed_rungs = (
                *(failed for failed in self.failed_rungs if not _same(failed, rung)),
                fewer_slots(rung, rung.max_num_seqs // 2),
            )
        if action.kind in ("same", "fewer"):
            self.only = (rung.precision, rung.devices)
        elif action.kind == "elsewhere":
            self.only = None
        if death.cause == "no_cuda":
            why = replace(death.why, en=death.why.en.rstrip("."), zh=death.why.zh.rstrip("。"))
            self.unusable |= dict.fromkeys(rung.devices, why)
        self.deadline = now + (MEMORY_WAIT_SECONDS if lacked_memory else action.delay_seconds)
        self.wanted_free_bytes = int(rung.free_bytes * RECOVERED_SHARE) if lacked_memory else 0
        return action

    def verdict(self, plan: Plan, rung: Rung, now: float) -> Literal["start", "wait", "give_up"]:
        """Whether to carry out a plan made now; `rung` is the one that ended."""
        if plan.chosen and (_free_bytes(plan, rung) >= self.wanted_free_bytes or now >= self.deadline):
            return "start"
        if now < self.deadline:
            return "wait"
        if self.only is None:
            return "give_up"
        return self._still_too_full(rung, now)

    def _still_too_full(self, rung: Rung, now: float) -> Literal["wait", "give_up"]:
        """Other processes use the memory: this counts as another death of the same rung."""
        self._count_memory_death(now)
        self.deadline = now + MEMORY_WAIT_SECONDS
        if len(self.memory_deaths) < MOST_MEMORY_DEATHS:
            return "wait"
        if not self.automatic:
            return "give_up"
        self._exclude(rung)
        return "wait"

    def _count_memory_death(self, now: float) -> None:
        self.memory_deaths = (*(at for at in self.memory_deaths if now - at < WINDOW_SECONDS), now)

    def _exclude(self, rung: Rung) -> None:
        self.failed_rungs = (
            *self.failed_rungs,
            never_again(rung.precision, rung.devices, rung.need_bytes),
        )
        self.only = None


def _same(failed: FailedRung, rung: Rung) -> bool:
    return (failed.precision, failed.devices) == (rung.precision, rung.devices)


def _free_bytes(plan: Plan, rung: Rung) -> int:
    """What is free now on the devices of a rung, whichever the plan chose."""
    free = {device.uuid: device.free_bytes for device in plan.devices}
    counts = [free.get(name) for name in rung.devices]
    return sum(plan.host.available_bytes if count is None else count for count in counts)


@dataclass(frozen=True)
class RecoveryAction:
    """What to do after a death."""

    kind: Literal["same", "fewer", "lower", "elsewhere", "fail"]
    """Start the same rung again, the same with fewer slots, a lower one, whatever fits without the GPU that can't be
    used; or stop trying."""
    delay_seconds: float = 0.0


def recovery_action(
    death: Death, automatic: bool, memory_deaths: int, crashes: int, fewer: bool = False
) -> RecoveryAction:
    """The rules of docs/design.md, and one more: if the proof fails with several slots that Berth chose, the precision
    is tried once more with fewer of them.

    Args:
        death: the last one.
        automatic: whether Berth chose the precision; one that was set is never replaced.
        memory_deaths: deaths for lack of memory in service within WINDOW_SECONDS, this one included.
        crashes: other deaths in a row since the engine was last ready, this one included.
        fewer: whether the slots of the rung can be reduced: Berth chose them, and there is more than one; after a
            failed proof, they were not reduced before.
    """
    if death.cause in ("bad_checkpoint", "self_test"):
        return RecoveryAction("fail")
    if death.cause not in MEMORY_CAUSES:
        gpu_gone = death.cause in ("gpu_lost", "no_cuda")
        delay = min(LONGEST_BACKOFF_SECONDS, 2.0 ** (crashes - 1))
        return RecoveryAction("elsewhere" if gpu_gone else "same", delay)
    if death.phase == "ready" and memory_deaths < MOST_MEMORY_DEATHS:
        return RecoveryAction("fewer" if fewer else "same")
    if death.phase == "proving" and fewer:
        return RecoveryAction("fewer")
    return RecoveryAction("lower" if automatic else "fail")
