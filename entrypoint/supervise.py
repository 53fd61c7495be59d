"""The loop of `serve`: launches the web service, plans, launches the engine, and brings back whichever dies."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import sys
import time
from pathlib import Path

from app.contract import exits
from app.contract.plan import Plan, Refusal, Rung, gpus_of
from app.contract.status import EngineDown, EngineEvent, Loading, Proving, Ready
from entrypoint import host, ledger
from entrypoint.access import Access, invitation
from entrypoint.arrival import Arrival
from entrypoint.board import StatusBoard
from entrypoint.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from entrypoint.config import app_config, write_config
from entrypoint.deaths import MEMORY_CAUSES, certify, final_refusal
from entrypoint.engine_run import EngineRun
from entrypoint.explain import plan_lines
from entrypoint.measure import measure
from entrypoint.models import ModelChoice, demo_instead
from entrypoint.plan import make_plan
from entrypoint.recovery import Recovery
from entrypoint.remote import HubRefused, reason
from entrypoint.settings import Settings
from entrypoint.signals import Signals
from entrypoint.state import StateDir, write_held
from entrypoint.web_run import WebRun
from entrypoint.words import size

TICK_SECONDS = 0.25
ENGINE_GRACE_SECONDS = 3.0
log = logging.getLogger(__name__)


class Supervisor:
    """One service: a web child, at most one engine child, one status."""

    def __init__(
        self,
        settings: Settings,
        choice: ModelChoice,
        state: StateDir,
        run_dir: Path,
        listener: socket.socket,
        board: StatusBoard,
        access: Access,
    ) -> None:
        self.settings, self.choice, self.state = settings, choice, state
        self.run_dir, self.listener, self.board, self.access = run_dir, listener, board, access
        self.recovery = Recovery(automatic=settings.precision is None)
        self.ledger = ledger.read_ledger(state.ledger)
        self.checkpoint: Checkpoint | None = None
        self.plan: Plan | None = None
        self.web = WebRun(settings, state.config, run_dir, listener)
        self.engine: EngineRun | None = None
        self.died: Rung | None = None
        self.arrival: Arrival | None = None
        self.exit_code: int | None = None
        self.selector = selectors.DefaultSelector()
        self.signals = Signals()
        self.signals.register(self.selector)

    def run(self) -> int:
        """Serves until a signal or a refusal ends it; returns the exit code.

        Raises:
            SettingsError, CheckpointError: before anything was loaded; the web service is stopped first.
        """
        try:
            self._write_config()
            self.web.start()
            if self.choice.hub is None:
                self._begin(self.choice)
            else:
                self.arrival = Arrival(self.settings, self.choice, self.run_dir, self.board, self._plan_for)
            while not self.signals.count and self.exit_code is None:
                self._turn()
            return self.exit_code or exits.OK
        finally:
            self._stop()

    def _turn(self) -> None:
        for key, _ in self.selector.select(TICK_SECONDS):
            if key.data == "signals":
                self.signals.drain()
        self._watch_arrival()
        self._watch_engine()
        self.web.watch()
        if self.died is not None:
            self._recover(self.died)

    # the model and its plans

    def _watch_arrival(self) -> None:
        if self.arrival is None:
            return
        try:
            choice = self.arrival.step()
        except HubRefused as error:
            self.arrival = None
            self._refuse(error.refusal)
            return
        if choice is not None:
            self.arrival = None
            self._begin(choice)

    def _begin(self, choice: ModelChoice) -> None:
        """Plans for a model that is on this machine, and starts the engine."""
        self.choice = choice
        self.board.update("planning", model_name=choice.name, model_why=choice.why)
        try:
            self.checkpoint = read_checkpoint(choice.folder)
        except CheckpointError as error:
            if not choice.is_default:
                raise
            return self._begin(demo_instead(choice, reason(error)))
        plan = self._make_plan()
        if plan.refusal and choice.is_default:
            return self._begin(demo_instead(choice, plan.refusal.why))
        self.recovery.barred = ledger.barred(self.ledger, plan)
        self._carry_out(self._make_plan() if self.recovery.barred else plan)

    def _make_plan(self) -> Plan:
        assert self.checkpoint is not None
        return self._plan_for(self.choice, self.checkpoint)

    def _plan_for(self, choice: ModelChoice, checkpoint: Checkpoint) -> Plan:
        past = self.recovery
        return make_plan(measure(self.settings, choice, checkpoint, None, past.barred, past.only, past.unusable))

    def _carry_out(self, plan: Plan) -> None:
        self.plan, self.died = plan, None
        sys.stderr.write("\n".join(plan_lines(plan)) + "\n")
        self.board.planned(plan)
        if plan.chosen is None:
            assert plan.refusal is not None
            return self._refuse(plan.refusal)
        self._write_config()
        self._start_engine(plan.chosen)

    def _write_config(self) -> None:
        write_config(self.state.config, app_config(self.choice, self.run_dir, self.plan, self.access))

    def _refuse(self, refusal: Refusal) -> None:
        line = f" {refusal.env_line}" if refusal.env_line else ""
        log.error("%s %s%s", refusal.why.en, refusal.remedy.en, line)
        self.board.update("failed", refusal=refusal)
        if self.settings.on_refusal == "exit":
            self.exit_code = exits.REFUSED_PLAN

    # the engine

    def _start_engine(self, rung: Rung) -> None:
        self.engine = EngineRun(self.state.config, rung, self.settings.environment)
        self.selector.register(self.engine.events, selectors.EVENT_READ, "engine")
        self.board.begin_attempt(rung)

    def _watch_engine(self) -> None:
        if self.engine is None:
            return
        code = self.engine.child.exit_code()  # before the events, so that the last ones are read
        for event in self.engine.read_events():
            self._take(event)
        if code is not None:
            self._bury(self.engine, code)

    def _take(self, event: EngineEvent) -> None:
        assert self.engine is not None
        if isinstance(event, Loading):
            self.board.progress(event.done_bytes, event.total_bytes)
        elif isinstance(event, Proving):
            self.engine.phase = "proving"
            self.board.update("proving")
            log.info("loaded %s of weights in %.1f s", size(event.weights_bytes), event.load_seconds)
        elif isinstance(event, Ready):
            self._ready(event)
        elif isinstance(event, EngineDown):
            log.error("the engine says: %s: %s", event.cause, event.message)

    def _ready(self, event: Ready) -> None:
        assert self.engine is not None
        rung, proof = self.engine.rung, event.proof
        self.engine.phase = "ready"
        self.recovery.served()
        self.board.end_attempt("ready", over=False)
        self.board.update("ready", proof=proof)
        self._note(rung, time.time(), proof.measured_bytes, proved=True)
        gpus = {uuid: event.resident_by_device.get(uuid, 0) for uuid in gpus_of(rung.device)}
        write_held(self.state, host.tree_anonymous_bytes(os.getpid()), gpus)
        log.info("proved: planned %s, measured %s at its peak", size(proof.planned_bytes), size(proof.measured_bytes))
        for part in rung.placements:
            measured = size(proof.measured_by_device.get(part.device, 0))
            log.info("proved on %s: planned %s, measured %s", part.device, size(part.need_bytes), measured)
        log.info("ready: %s as %s. %s", self.choice.name, rung.precision, invitation(self.settings, self.state))

    def _bury(self, engine: EngineRun, code: int) -> None:
        self.selector.unregister(engine.events)
        self.engine = None
        engine.close()
        write_held(self.state, 0, {})
        death = certify(engine.facts(code, self.plan))
        log.error("%s%s", death.why.en, f" {death.remedy.en}" if death.remedy else "")
        self.board.end_attempt("died")
        self.board.update(last_death=death, deaths=self.board.status.deaths + 1, proof=None)
        if death.cause in MEMORY_CAUSES and death.phase != "ready":
            self._note(engine.rung, death.at, None, proved=False)
        step = self.recovery.after(death, engine.rung, time.monotonic())
        if step.action == "fail":
            self._refuse(final_refusal(death, self.recovery.automatic))
        else:
            self.died = engine.rung
            self.board.update("recovering")

    def _note(self, rung: Rung, at: float, measured_bytes: int | None, proved: bool) -> None:
        assert self.plan is not None
        entry = ledger.new_entry(self.plan, rung, at, measured_bytes, proved)
        self.ledger = ledger.add(self.state.ledger, self.ledger, entry)

    def _recover(self, rung: Rung) -> None:
        now = time.monotonic()
        if now < self.recovery.not_before:
            return
        plan = self._make_plan()
        verdict = self.recovery.verdict(plan, rung, now)
        if verdict != "wait":
            self._carry_out(plan)

    # the end

    def _stop(self) -> None:
        """Drains the web service, then ends the engine; a second signal skips the waiting."""
        self.board.update("stopping")
        if self.signals.count:
            log.info("stopping")
        self.web.stop(self._in_a_hurry)
        if self.arrival is not None:
            self.arrival.stop(self._in_a_hurry)
        if self.engine is not None:
            self.engine.child.stop(ENGINE_GRACE_SECONDS, self._in_a_hurry)
            self.board.end_attempt("stopped")
        write_held(self.state, 0, {})
        self.selector.close()
        self.signals.close()

    def _in_a_hurry(self) -> bool:
        return self.signals.count > 1
