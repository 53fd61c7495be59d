"""The loop of `serve`: launches the web service, plans, launches the engine, and brings back whichever dies."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import sys
import time
from pathlib import Path

from app.contract import exits
from app.contract.plan import Plan, Refusal, Rung
from entrypoint.checkpoint.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from entrypoint.hub.remote_headers import HubRefused, reason
from entrypoint.measure import measure
from entrypoint.messages.sentence import text
from entrypoint.model_choice import ModelChoice, demo_instead
from entrypoint.plan.planner import make_plan
from entrypoint.report.plan_report import plan_lines
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state import ledger
from entrypoint.state.api_key import Access
from entrypoint.state.app_config import app_config, stands
from entrypoint.state.json_file import KeptFiles
from entrypoint.state.state_dir import StateDir
from entrypoint.state.status_writer import StatusBoard
from entrypoint.supervisor.death import final_refusal
from entrypoint.supervisor.engine_monitor import EngineWatch
from entrypoint.supervisor.model_fetch import Arrival
from entrypoint.supervisor.recovery import Recovery
from entrypoint.supervisor.signals import Signals
from entrypoint.supervisor.web_process import WebRun

TICK_SECONDS = 0.25
DISK_SECONDS = 5.0
"""How long after a config.json that could not be written the next try is made."""
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
        self.recovery = Recovery(settings.precision is None, settings.max_num_seqs is None)
        self.checkpoint: Checkpoint | None = None
        self.plan: Plan | None = None
        self.web = WebRun(settings, state.config, run_dir, listener)
        self.died: Rung | None = None
        self.arrival: Arrival | None = None
        self.exit_code: int | None = None
        self.files = KeptFiles()
        self.selector = selectors.DefaultSelector()
        self.engine = EngineWatch(settings, state, board, self.recovery, self.selector)
        self.signals = Signals()
        self.signals.register(self.selector)

    def run(self) -> int:
        """Serves until a signal or a refusal ends it; returns the exit code.

        Raises:
            SettingsError, CheckpointError: before anything was loaded; the web service is stopped first.
        """
        try:
            if not self._write_config():
                raise SettingsError(f"GLM_STATE_DIR={self.state.folder}: can't be written; is its disk full?")
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
        self.board.update("planning", model_name=choice.name, model_why=text(choice.why))
        try:
            self.checkpoint = read_checkpoint(choice.folder)
        except CheckpointError as error:
            if not choice.is_default:
                raise
            return self._begin(demo_instead(choice, reason(error)))
        plan = self._make_plan()
        if plan.refusal and choice.is_default:
            return self._begin(demo_instead(choice, plan.refusal.why))
        self.recovery.barred = ledger.failed_rungs(self.engine.ledger, plan)
        self._carry_out(self._make_plan() if self.recovery.barred else plan)

    def _make_plan(self) -> Plan:
        assert self.checkpoint is not None
        return self._plan_for(self.choice, self.checkpoint)

    def _plan_for(self, choice: ModelChoice, checkpoint: Checkpoint) -> Plan:
        past = self.recovery
        return make_plan(measure(self.settings, choice, checkpoint, None, past.barred, past.only, past.unusable))

    def _carry_out(self, plan: Plan) -> None:
        self.plan, self.died = plan, None
        with contextlib.suppress(OSError):  # a log that can't be written ends nothing
            sys.stderr.write("\n".join(plan_lines(plan)) + "\n")
        self.board.planned(plan)
        if plan.chosen is None:
            assert plan.refusal is not None
            return self._refuse(plan.refusal)
        if self._write_config():
            self.engine.start(plan, plan.chosen)
        else:
            self.died, self.recovery.not_before = plan.chosen, time.monotonic() + DISK_SECONDS
            self.board.update("recovering")

    def _write_config(self) -> bool:
        """Whether web and engine will read there what they need to know."""
        seconds = self.settings.request_seconds
        database = self.state.database
        config = app_config(self.choice, self.run_dir, self.plan, self.access, seconds, database)
        return self.files.write(self.state.config, config) or stands(self.state.config, config)

    def _refuse(self, refusal: Refusal) -> None:
        line = f" {refusal.env_line}" if refusal.env_line else ""
        log.error("%s %s%s", refusal.why.en, refusal.remedy.en, line)
        self.board.update("failed", refusal=refusal)
        if self.settings.on_refusal == "exit":
            self.exit_code = exits.REFUSED_PLAN

    # the engine

    def _watch_engine(self) -> None:
        ended = self.engine.watch()
        if ended is None:
            return
        step = self.recovery.after(ended.death, ended.rung, time.monotonic())
        if step.action == "fail":
            self._refuse(final_refusal(ended.death, self.recovery.automatic))
        else:
            self.died = ended.rung

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
        self.engine.stop(self._in_a_hurry)
        self.selector.close()
        self.signals.close()

    def _in_a_hurry(self) -> bool:
        return self.signals.count > 1
