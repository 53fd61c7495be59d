"""What has happened to the engine so far, and how and when it is started again."""

from __future__ import annotations

from dataclasses import dataclass, field
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
"""How long freed memory may take to be seen before the next plan."""
RECOVERED_SHARE = 0.9
"""Of what was free at the last plan; seen again, nothing is left to wait for."""


@dataclass
class Recovery:
    """Times are seconds of a monotonic clock, given by the caller."""

    automatic: bool
    """Whether Berth chooses the precision."""
    automatic_slots: bool = True
    """Whether Berth chooses how many requests are answered at once."""
    barred: tuple[FailedRung, ...] = ()
    only: tuple[Precision, tuple[str, ...]] | None = None
    unusable: dict[str, Text] = field(default_factory=dict)
    """GPUs, by UUID, that the engine could not use although the driver shows them, and why."""
    wanted_free_bytes: int = 0
    not_before: float = 0.0
    deadline: float = 0.0
    crashes: int = 0
    memory_deaths: tuple[float, ...] = ()

    def served(self) -> None:
        """The engine is ready: crashes in a row are over."""
        self.crashes = 0

    def after(self, death: Death, rung: Rung, now: float) -> Step:
        """Takes a death into account and says what follows."""
        lacked_memory = death.cause in MEMORY_CAUSES
        if not lacked_memory:
            self.crashes += 1
        elif death.phase == "ready":
            self._count_memory_death(now)
        fewer = self.automatic_slots and rung.max_num_seqs > 1
        if death.phase == "proving":
            fewer = fewer and not any(barred.max_num_seqs and _same(barred, rung) for barred in self.barred)
        step = next_step(death, self.automatic, len(self.memory_deaths), self.crashes, fewer)
        if step.action == "lower":
            self._bar(rung)
        elif step.action == "fewer":
            self.barred = (
                *(one for one in self.barred if not _same(one, rung)),
                fewer_slots(rung, rung.max_num_seqs // 2),
            )
        if step.action in ("same", "fewer"):
            self.only = (rung.precision, rung.devices)
        elif step.action == "elsewhere":
            self.only = None
        if death.cause == "no_cuda":
            why = Text(death.why.en.rstrip("."), death.why.zh.rstrip("。"))
            self.unusable |= dict.fromkeys(rung.devices, why)
        self.not_before = now + step.delay_seconds
        self.deadline = now + MEMORY_WAIT_SECONDS if lacked_memory else self.not_before
        self.wanted_free_bytes = int(rung.free_bytes * RECOVERED_SHARE) if lacked_memory else 0
        return step

    def verdict(self, plan: Plan, rung: Rung, now: float) -> Literal["start", "wait", "give_up"]:
        """Whether a plan made now is to be carried out; `rung` is the one that died."""
        if plan.chosen and (_free_bytes(plan, rung) >= self.wanted_free_bytes or now >= self.deadline):
            return "start"
        if now < self.deadline:
            return "wait"
        if self.only is None:
            return "give_up"
        return self._still_too_full(rung, now)

    def _still_too_full(self, rung: Rung, now: float) -> Literal["wait", "give_up"]:
        """Somebody else holds the memory: that counts like another death of the same rung."""
        self._count_memory_death(now)
        self.deadline = now + MEMORY_WAIT_SECONDS
        if len(self.memory_deaths) < MOST_MEMORY_DEATHS:
            return "wait"
        if not self.automatic:
            return "give_up"
        self._bar(rung)
        return "wait"

    def _count_memory_death(self, now: float) -> None:
        self.memory_deaths = (*(at for at in self.memory_deaths if now - at < WINDOW_SECONDS), now)

    def _bar(self, rung: Rung) -> None:
        self.barred = (
            *self.barred,
            never_again(rung.precision, rung.devices, rung.need_bytes),
        )
        self.only = None


def _same(barred: FailedRung, rung: Rung) -> bool:
    return (barred.precision, barred.devices) == (rung.precision, rung.devices)


def _free_bytes(plan: Plan, rung: Rung) -> int:
    """What is free now on the devices of a rung, whichever the plan has chosen."""
    told = {device.uuid: device.free_bytes for device in plan.devices}
    counts = [told.get(name) for name in rung.devices]
    return sum(plan.host.available_bytes if count is None else count for count in counts)


@dataclass(frozen=True)
class Step:
    """What to do after a death."""

    action: Literal["same", "fewer", "lower", "elsewhere", "fail"]
    """The same rung again, the same with fewer slots, a lower one, whatever fits without the GPU that can't be used,
    or stop trying."""
    delay_seconds: float = 0.0


def next_step(death: Death, automatic: bool, memory_deaths: int, crashes: int, fewer: bool = False) -> Step:
    """The design's rules, and one more: where the proof fails with several slots that Berth chose, the precision is
    kept for one more try with fewer of them.

    Args:
        death: the last one.
        automatic: whether Berth chose the precision; one that was set is never replaced.
        memory_deaths: deaths for lack of memory in service within WINDOW_SECONDS, this one included.
        crashes: other deaths in a row since the engine was last ready, this one included.
        fewer: whether the rung that died has slots to give up: Berth chose them, and there is more than one; after
            a failed proof, they were not given up before.
    """
    if death.cause in ("bad_checkpoint", "self_test"):
        return Step("fail")
    if death.cause not in MEMORY_CAUSES:
        gpu_gone = death.cause in ("gpu_lost", "no_cuda")
        return Step("elsewhere" if gpu_gone else "same", min(LONGEST_BACKOFF_SECONDS, 2.0 ** (crashes - 1)))
    if death.phase == "ready" and memory_deaths < MOST_MEMORY_DEATHS:
        return Step("fewer" if fewer else "same")
    if death.phase == "proving" and fewer:
        return Step("fewer")
    return Step("lower" if automatic else "fail")
