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
from entrypoint.supervisor.death import Evidence


class EngineRun:
    """A started engine. `events` is the read end of its pipe, for a selector."""

    def __init__(self, config: Path, rung: Rung, environment: Mapping[str, str]) -> None:
        self.rung = rung
        self.account: EngineDown | None = None
        self.silent_seconds: float | None = None
        """How long it had sent no event when it was killed for that."""
        self._oom_kills = cgroup.oom_kills()
        self.child, self._reader = spawn_reporting(
            "engine",
            ["app.engine", "--config", str(config)],
            {**environment, **_engine_environment(rung)},
            EngineEvent,
            ENGINE_OOM_SCORE,
        )
        self.events = self._reader.descriptor

    def read_events(self) -> Iterator[EngineEvent]:
        """The events that have arrived."""
        for event in self._reader.read():
            if isinstance(event, EngineDown):
                self.account = event
            yield event

    def evidence(self, exit_code: int, phase: Phase, plan: Plan | None) -> Evidence:
        """What is known about its death; call once it has ended and its events are read.

        `phase` is the service's, `plan` tells about the GPUs.
        """
        gpus = [device for device in (plan.devices if plan else ()) if device.uuid in self.rung.gpus]
        return Evidence(
            at=time.time(),
            phase="ready" if self.silent_seconds is not None else phase,  # only an engine that serves is killed as hung
            exit_code=exit_code,
            account=self.account,
            oom_kills=cgroup.oom_kills() - self._oom_kills,
            limit_bytes=host.memory_limit_bytes(),
            peak_bytes=cgroup.peak_bytes(),
            silent_seconds=self.silent_seconds,
            gpu_lost=next((reason for gpu in gpus if (reason := why_lost(gpu))), None),
        )

    def close(self) -> None:
        """Closes the pipe and the lifeline of an engine that has ended."""
        self._reader.close()
        self.child.release()


def _engine_environment(rung: Rung) -> dict[str, str]:
    """The engine makes no request to a hub, and sees only the rung's GPUs, in the rung's order."""
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(rung.gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
