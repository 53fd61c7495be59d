"""One run of the engine: the process, its events, and what is known when it dies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.contract.plan import Plan, Rung
from app.contract.status import EngineDown, EngineEvent, Phase
from entrypoint.machine import cgroup, host
from entrypoint.machine.gpus import why_lost
from entrypoint.supervisor.child_process import ENGINE_OOM_SCORE, spawn_reporting
from entrypoint.supervisor.death import Facts


class EngineRun:
    """A started engine. `events` is the read end of its pipe, for a selector."""

    def __init__(self, config: Path, rung: Rung, environment: Mapping[str, str]) -> None:
        self.rung = rung
        self.phase: Phase = "loading"
        self.started_at = time.time()
        self.account: EngineDown | None = None
        self.silent_seconds: float | None = None
        """How long it had said nothing when it was killed for that."""
        self._kills = cgroup.oom_kills()
        self.child, self._pipe = spawn_reporting(
            "engine",
            ["app.engine", "--config", str(config)],
            {**environment, **_engine_environment(rung)},
            EngineEvent,
            ENGINE_OOM_SCORE,
        )
        self.events = self._pipe.descriptor

    def read_events(self) -> Iterator[EngineEvent]:
        """The events that have arrived."""
        for event in self._pipe.read():
            if isinstance(event, EngineDown):
                self.account = event
            yield event

    def facts(self, exit_code: int, plan: Plan | None) -> Facts:
        """What is known about its death; call once it has ended and its events are read. `plan` tells of its GPUs."""
        gpus = [device for device in (plan.devices if plan else ()) if device.uuid in self.rung.gpus]
        limits = [limit for group in cgroup.memory_groups() if (limit := group.limit_bytes()) is not None]
        ram = host.ram_bytes()
        return Facts(
            at=time.time(),
            phase=self.phase,
            exit_code=exit_code,
            account=self.account,
            oom_kills=cgroup.oom_kills() - self._kills,
            limit_bytes=min((limit for limit in limits if limit < ram), default=None),
            peak_bytes=cgroup.peak_bytes(),
            silent_seconds=self.silent_seconds,
            gpu_lost=next((why for gpu in gpus if (why := why_lost(gpu))), None),
        )

    def close(self) -> None:
        """Lets go of the pipe and the lifeline of an engine that has ended."""
        self._pipe.close()
        self.child.release()


def _engine_environment(rung: Rung) -> dict[str, str]:
    """The engine asks no hub, and sees its GPUs only.

    They are in the order of their UUIDs here, whatever order CUDA would count in.
    """
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(rung.gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
