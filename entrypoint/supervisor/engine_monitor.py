"""At most one engine: its events become the status, too long a silence its end, its end a certificate."""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.contract.plan import Plan, Rung
from app.contract.status import Death, EngineDown, EngineEvent, Loading, Proving, Ready
from entrypoint.machine import host
from entrypoint.settings.settings import Settings
from entrypoint.state import ledger
from entrypoint.state.api_key import invitation
from entrypoint.state.state_dir import StateDir, write_held
from entrypoint.state.status_writer import StatusBoard
from entrypoint.supervisor.death import MEMORY_CAUSES, certify
from entrypoint.supervisor.engine_process import EngineRun
from entrypoint.supervisor.recovery import Recovery
from entrypoint.units import size

LEAST_SECONDS = 60.0
"""A machine that swaps, or that others keep busy, may take so long for a step that usually takes one second."""
PROOFS = 10.0
"""The proof holds the longest step there is, a full chunk at the end of the context: so many times its time are enough
on a machine that has become slower since."""
LONGEST_LOOK_SECONDS = 1.0


GRACE_SECONDS = 3.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """An engine that is no more."""

    rung: Rung
    death: Death


class EngineWatch:
    """Starts an engine and follows it to its end; what it measured goes into the ledger."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        board: StatusBoard,
        recovery: Recovery,
        selector: selectors.BaseSelector,
    ) -> None:
        self._settings, self._state, self._board = settings, state, board
        self._recovery, self._selector = recovery, selector
        self.ledger = ledger.read_ledger(state.ledger)
        self._run: EngineRun | None = None
        self._plan: Plan | None = None
        self._silence = Silence(0.0)

    def start(self, plan: Plan, rung: Rung) -> None:
        """Starts the rung of a plan."""
        self._plan = plan
        self._run = EngineRun(self._state.config, rung, self._settings.environment)
        self._selector.register(self._run.events, selectors.EVENT_READ, "engine")
        self._board.begin_attempt(rung)

    def watch(self) -> Ended | None:
        """Takes the events that have come, and ends an engine that has hung; its certificate, once it has ended."""
        if self._run is None:
            return None
        code = self._run.child.exit_code()  # before the events, so that the last ones are read
        for event in self._run.read_events():
            self._silence.heard()
            self._take(self._run, event)
        if code is not None:
            return self._bury(self._run, code)
        if self._run.phase == "loading":
            self._board.look_at_loading()
        if self._run.phase == "ready" and self._silence.is_over(time.monotonic()):
            self._end_hung(self._run)
        return None

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Ends the engine, if there is one."""
        if self._run is not None:
            self._run.child.stop(GRACE_SECONDS, hurry)
            self._board.end_attempt("stopped")
        write_held(self._state, 0, {})

    def _take(self, run: EngineRun, event: EngineEvent) -> None:
        if isinstance(event, Loading):
            self._board.progress(event.done_bytes, event.total_bytes)
        elif isinstance(event, Proving):
            run.phase = "proving"
            self._board.update("proving")
            log.info("loaded %s of weights in %.1f s", size(event.weights_bytes), event.load_seconds)
        elif isinstance(event, Ready):
            self._ready(run, event)
        elif isinstance(event, EngineDown):
            log.error("the engine says: %s: %s", event.cause, event.message)

    def _ready(self, run: EngineRun, event: Ready) -> None:
        rung, proof = run.rung, event.proof
        run.phase = "ready"
        self._silence = Silence(proof.proof_seconds)
        self._recovery.served()
        self._board.end_attempt("ready", over=False)
        self._board.update("ready", proof=proof)
        self._note(rung, time.time(), proof.measured_bytes, proved=True)
        gpus = {uuid: event.resident_by_device.get(uuid, 0) for uuid in rung.gpus}
        write_held(self._state, host.tree_anonymous_bytes(os.getpid()), gpus)
        log.info("proved: planned %s, measured %s at its peak", size(proof.planned_bytes), size(proof.measured_bytes))
        for part in rung.placements:
            measured = size(proof.measured_by_device.get(part.device, 0))
            log.info("proved on %s: planned %s, measured %s", part.device, size(part.need_bytes), measured)
        invited = invitation(self._settings, self._state)
        log.info("ready: %s as %s. %s", self._board.status.model_name, rung.precision, invited)

    def _end_hung(self, run: EngineRun) -> None:
        if run.silent_seconds is None:
            run.silent_seconds = self._silence.seconds
            log.error("the engine was silent for %.0f s and is killed", run.silent_seconds)
            self._board.update("recovering")
            run.child.send_kill()

    def _bury(self, run: EngineRun, code: int) -> Ended:
        self._selector.unregister(run.events)
        self._run = None
        run.close()
        write_held(self._state, 0, {})
        death = certify(run.facts(code, self._plan))
        log.error("%s%s", death.why.en, f" {death.remedy.en}" if death.remedy else "")
        self._board.end_attempt("died")
        # In one write: whoever sees the death must not see `ready` beside it.
        self._board.update("recovering", last_death=death, deaths=self._board.status.deaths + 1, proof=None)
        if death.cause in MEMORY_CAUSES and death.phase != "ready":
            self._note(run.rung, death.at, None, proved=False)
        return Ended(run.rung, death)

    def _note(self, rung: Rung, at: float, measured_bytes: int | None, proved: bool) -> None:
        assert self._plan is not None
        entry = ledger.new_entry(self._plan, rung, at, measured_bytes, proved)
        self.ledger = ledger.add(self._state.ledger, self.ledger, entry)


class Silence:
    """Counts the time in which this process listened and heard nothing.

    Listening is what counts: where the whole container was stopped or the machine slept, nobody was silent.
    """

    def __init__(self, proof_seconds: float) -> None:
        self.limit_seconds = max(LEAST_SECONDS, PROOFS * proof_seconds)
        self.seconds = 0.0
        self._looked_at: float | None = None

    def heard(self) -> None:
        """The engine said something."""
        self.seconds = 0.0

    def is_over(self, now: float) -> bool:
        """Whether it has lasted too long; `now` in seconds of a monotonic clock, asked several times a second."""
        if self._looked_at is not None:
            self.seconds += min(now - self._looked_at, LONGEST_LOOK_SECONDS)
        self._looked_at = now
        return self.seconds > self.limit_seconds
