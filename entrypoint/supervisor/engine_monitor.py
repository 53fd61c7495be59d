"""At most one engine: its events become the status, a hang ends it, and its end becomes a death certificate."""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.contract.plan import Plan, Rung
from app.contract.status import Beat, Death, EngineDown, EngineEvent, Loading, ProofStep, Proving, Ready
from entrypoint.machine import host
from entrypoint.report.progress_line import progress_line
from entrypoint.settings.settings import Settings
from entrypoint.state import ledger
from entrypoint.state.api_key import how_to_open
from entrypoint.state.state_dir import StateDir, write_usage
from entrypoint.state.status_writer import StatusWriter
from entrypoint.supervisor.death import MEMORY_CAUSES, certify
from entrypoint.supervisor.engine_process import EngineRun
from entrypoint.supervisor.recovery import Recovery
from entrypoint.units import size

LEAST_SECONDS = 60.0
"""On a machine that swaps, or that others keep busy, a step that usually takes one second may take so long."""
PROOFS = 10.0
"""The proof holds the longest step there is, a full chunk at the end of the context: so many times its time are enough
on a machine that has become slower since."""
LONGEST_TICK_SECONDS = 1.0
LOG_SECONDS = 10.0
"""The progress of a start is logged so often."""
GRACE_SECONDS = 3.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineEnd:
    """An engine that has ended."""

    rung: Rung
    death: Death


class EngineMonitor:
    """Starts an engine and follows it to its end; what it measured goes into the ledger."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        status: StatusWriter,
        recovery: Recovery,
        selector: selectors.BaseSelector,
    ) -> None:
        self._settings, self._state, self._status = settings, state, status
        self._recovery, self._selector = recovery, selector
        self.ledger = ledger.read_ledger(state.ledger)
        self._run: EngineRun | None = None
        self._plan: Plan | None = None
        self._watchdog = Watchdog(0.0)
        self._logged_at = 0.0

    def start(self, plan: Plan, rung: Rung) -> None:
        """Starts the rung of a plan."""
        self._plan = plan
        self._logged_at = time.monotonic()
        self._run = EngineRun(self._state.config, rung, self._settings.environment)
        self._selector.register(self._run.events, selectors.EVENT_READ, "engine")
        self._status.begin_attempt(rung)

    def watch(self) -> EngineEnd | None:
        """Handles the events that have arrived, and kills an engine that hangs; its end, once it has ended."""
        if self._run is None:
            return None
        code = self._run.child.exit_code()  # before the events, so that the last ones are read
        for event in self._run.read_events():
            self._watchdog.reset()
            self._handle(self._run, event)
        if code is not None:
            return self._end(self._run, code)
        if self._status.phase == "loading":
            self._status.check_loading()
        self._log_progress()
        if self._status.phase == "ready" and self._watchdog.has_expired(time.monotonic()):
            self._kill_hung(self._run)
        return None

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Ends the engine, if there is one."""
        if self._run is not None:
            self._run.child.stop(GRACE_SECONDS, hurry)
            self._status.end_attempt("stopped")
        write_usage(self._state, 0, {})

    def _handle(self, run: EngineRun, event: EngineEvent) -> None:
        if isinstance(event, Loading):
            self._status.show_loading(event.done_bytes, event.total_bytes)
        elif isinstance(event, Proving):
            self._status.update("proving")
            log.info("loaded %s of weights in %.1f s", size(event.weights_bytes), event.load_seconds)
        elif isinstance(event, ProofStep):
            self._status.show_steps(event.progress)
        elif isinstance(event, Ready):
            self._ready(run, event)
        elif isinstance(event, Beat) and event.tokens_per_second is not None:
            self.ledger = ledger.add_speed(self._state.ledger, self.ledger, event.tokens_per_second)
        elif isinstance(event, EngineDown):
            log.error("model process: %s: %s", event.cause, event.message)

    def _log_progress(self) -> None:
        """A short start is not worth a line."""
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS and (line := progress_line(self._status.status)):
            self._logged_at = now
            log.info("%s", line)

    def _ready(self, run: EngineRun, event: Ready) -> None:
        rung, proof = run.rung, event.proof
        self._watchdog = Watchdog(proof.proof_seconds)
        self._recovery.served()
        self._status.end_attempt("ready", over=False)
        self._status.update("ready", proof=proof)
        self._record(rung, time.time(), proof.measured_bytes, proved=True)
        gpus = {uuid: event.resident_by_device.get(uuid, 0) for uuid in rung.gpus}
        write_usage(self._state, host.tree_anonymous_bytes(os.getpid()), gpus)
        log.info("memory: planned %s, measured %s at its peak", size(proof.planned_bytes), size(proof.measured_bytes))
        for part in rung.placements:
            measured = size(proof.measured_by_device.get(part.device, 0))
            log.info("memory on %s: planned %s, measured %s", part.device, size(part.need_bytes), measured)
        opening = how_to_open(self._settings, self._state)
        log.info("ready: %s as %s. %s", self._status.status.model_name, rung.precision, opening)

    def _kill_hung(self, run: EngineRun) -> None:
        run.silent_seconds = self._watchdog.seconds
        log.error("the model process made no step for %.0f s and is killed", run.silent_seconds)
        self._status.update("recovering")
        run.child.send_kill()

    def _end(self, run: EngineRun, code: int) -> EngineEnd:
        self._selector.unregister(run.events)
        self._run = None
        run.close()
        write_usage(self._state, 0, {})
        death = certify(run.evidence(code, self._status.phase, self._plan))
        log.error("%s%s", death.why.en, f" {death.remedy.en}" if death.remedy else "")
        self._status.end_attempt("died")
        # In one write: whoever sees the death must not see `ready` beside it.
        self._status.update("recovering", last_death=death, deaths=self._status.status.deaths + 1, proof=None)
        if death.cause in MEMORY_CAUSES and death.phase != "ready":
            self._record(run.rung, death.at, None, proved=False)
        return EngineEnd(run.rung, death)

    def _record(self, rung: Rung, at: float, measured_bytes: int | None, proved: bool) -> None:
        assert self._plan is not None
        entry = ledger.new_entry(self._plan, rung, at, measured_bytes, proved)
        self.ledger = ledger.add(self._state.ledger, self.ledger, entry)


class Watchdog:
    """Counts the time in which this process waited for an event of the engine and none came.

    Only waiting counts: if the whole container was stopped or the machine slept, the engine was not silent.
    """

    def __init__(self, proof_seconds: float) -> None:
        self.limit_seconds = max(LEAST_SECONDS, PROOFS * proof_seconds)
        self.seconds = 0.0
        self._last_tick: float | None = None

    def reset(self) -> None:
        """An event has come."""
        self.seconds = 0.0

    def has_expired(self, now: float) -> bool:
        """Whether the engine hangs; `now` in seconds of a monotonic clock. To be called several times a second."""
        if self._last_tick is not None:
            self.seconds += min(now - self._last_tick, LONGEST_TICK_SECONDS)
        self._last_tick = now
        return self.seconds > self.limit_seconds
