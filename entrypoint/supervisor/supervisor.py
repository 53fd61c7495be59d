"""The loop of `serve`: starts the web service, plans, starts the engine, and restarts whichever ends."""

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
from entrypoint.measure import KnownSpeeds, measure, start_read_measurement
from entrypoint.messages.sentence import text
from entrypoint.model_choice import ModelChoice, demo_instead
from entrypoint.plan.planner import make_plan
from entrypoint.report.plan_report import plan_lines
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state import ledger
from entrypoint.state.api_key import AccessFiles
from entrypoint.state.app_config import app_config, stands
from entrypoint.state.json_file import KeptFiles
from entrypoint.state.state_dir import StateDir
from entrypoint.state.status_writer import StatusWriter
from entrypoint.supervisor.death import final_refusal
from entrypoint.supervisor.engine_monitor import EngineMonitor
from entrypoint.supervisor.model_fetch import ModelFetch
from entrypoint.supervisor.recovery import Recovery
from entrypoint.supervisor.signals import Signals
from entrypoint.supervisor.states import BackingOff, Ended, EngineRunning, FetchingModel, Refused, Starting, State
from entrypoint.supervisor.web_process import WebRun

TICK_SECONDS = 0.25
DISK_SECONDS = 5.0
"""The delay until the next attempt if config.json could not be written."""
log = logging.getLogger(__name__)


class Supervisor:
    """One service: a web process, at most one engine process, one status."""

    def __init__(
        self,
        settings: Settings,
        choice: ModelChoice,
        state_dir: StateDir,
        run_dir: Path,
        listener: socket.socket,
        status: StatusWriter,
        access: AccessFiles,
    ) -> None:
        self.settings, self.choice, self.state_dir = settings, choice, state_dir
        self.run_dir, self.status, self.access = run_dir, status, access
        self.state: State = Starting()
        self.recovery = Recovery(settings.precision is None, settings.max_num_seqs is None)
        self.checkpoint: Checkpoint | None = None
        self.plan: Plan | None = None
        self.web = WebRun(settings, state_dir.config, run_dir, listener)
        self.files = KeptFiles()
        self.selector = selectors.DefaultSelector()
        self.engine = EngineMonitor(settings, state_dir, status, self.recovery, self.selector)
        self.read_speed = start_read_measurement()  # beside the start of the web service
        self.signals = Signals()
        self.signals.register(self.selector)

    def run(self) -> int:
        """Serves until a signal or a refusal ends it; returns the exit code.

        Raises:
            SettingsError, CheckpointError: before anything was loaded; the web service is stopped first.
        """
        try:
            if not self._write_config():
                raise SettingsError(f"GLM_STATE_DIR={self.state_dir.folder}: can't be written; is its disk full?")
            self.web.start()
            if self.choice.hub is None:
                self._begin(self.choice)
            else:
                fetch = ModelFetch(self.settings, self.choice, self.run_dir, self.status, self._plan_for)
                self.state = FetchingModel(fetch)
            while not self.signals.count and not isinstance(self.state, Ended):
                self._tick()
            return self.state.exit_code if isinstance(self.state, Ended) else exits.OK
        finally:
            self._stop()

    def _tick(self) -> None:
        """One turn of the loop; a state that changes in it is acted on at once."""
        for key, _ in self.selector.select(TICK_SECONDS):
            if key.data == "signals":
                self.signals.drain()
        if isinstance(self.state, FetchingModel):
            self._continue_fetch(self.state.fetch)
        if isinstance(self.state, EngineRunning):
            self._watch_engine()
        self.web.watch()
        if isinstance(self.state, BackingOff):
            self._restart_engine(self.state)

    # the model and its plans

    def _continue_fetch(self, fetch: ModelFetch) -> None:
        try:
            choice = fetch.step()
        except HubRefused as error:
            return self._refuse(error.refusal)
        if choice is not None:
            self._begin(choice)

    def _begin(self, choice: ModelChoice) -> None:
        """Plans for a model that is on this machine, and starts the engine."""
        self.state = Starting()
        self.choice = choice
        self.status.update("planning", model_name=choice.name, model_why=text(choice.why))
        try:
            self.checkpoint = read_checkpoint(choice.folder)
        except CheckpointError as error:
            if not choice.is_default:
                raise
            return self._begin(demo_instead(choice, reason(error)))
        plan = self._make_plan()
        if plan.refusal and choice.is_default:
            return self._begin(demo_instead(choice, plan.refusal.why))
        self.recovery.failed_rungs = ledger.failed_rungs(self.engine.ledger, plan)
        self._carry_out(self._make_plan() if self.recovery.failed_rungs else plan)

    def _make_plan(self) -> Plan:
        assert self.checkpoint is not None
        return self._plan_for(self.choice, self.checkpoint)

    def _plan_for(self, choice: ModelChoice, checkpoint: Checkpoint) -> Plan:
        past, speeds = self.recovery, KnownSpeeds(self.read_speed, self.engine.ledger)
        inputs = measure(
            self.settings, choice, checkpoint, None, past.failed_rungs, past.only, past.unusable, speeds=speeds
        )
        return make_plan(inputs)

    def _carry_out(self, plan: Plan) -> None:
        self.plan = plan
        with contextlib.suppress(OSError):  # a log that can't be written ends nothing
            sys.stderr.write("\n".join(plan_lines(plan)) + "\n")
        self.status.show_plan(plan)
        if plan.chosen is None:
            assert plan.refusal is not None
            return self._refuse(plan.refusal)
        if self._write_config():
            self.state = EngineRunning()
            self.engine.start(plan, plan.chosen)
        else:
            self._back_off(plan.chosen, DISK_SECONDS)
            self.status.update("recovering")

    def _write_config(self) -> bool:
        """Whether config.json holds what the web service and the engine need."""
        seconds = self.settings.request_seconds
        database = self.state_dir.database
        config = app_config(self.choice, self.run_dir, self.plan, self.access, seconds, database)
        return self.files.write(self.state_dir.config, config) or stands(self.state_dir.config, config)

    def _refuse(self, refusal: Refusal) -> None:
        line = f" {refusal.env_line}" if refusal.env_line else ""
        log.error("%s %s%s", refusal.why.en, refusal.remedy.en, line)
        self.status.update("failed", refusal=refusal)
        self.state = Ended(exits.REFUSED_PLAN) if self.settings.on_refusal == "exit" else Refused()

    # the engine

    def _watch_engine(self) -> None:
        end = self.engine.watch()
        if end is None:
            return
        action = self.recovery.after(end.death, end.rung, time.monotonic())
        if action.kind == "fail":
            self._refuse(final_refusal(end.death, self.recovery.automatic))
        else:
            self._back_off(end.rung, action.delay_seconds)

    def _back_off(self, rung: Rung, seconds: float) -> None:
        self.state = BackingOff(rung, time.monotonic() + seconds)

    def _restart_engine(self, state: BackingOff) -> None:
        now = time.monotonic()
        if now < state.not_before:
            return
        plan = self._make_plan()
        if self.recovery.verdict(plan, state.rung, now) != "wait":
            self._carry_out(plan)

    # the end

    def _stop(self) -> None:
        """Drains the web service, then ends the engine; a second signal ends both at once."""
        self.status.update("stopping")
        if self.signals.count:
            log.info("stopping")
        self.web.stop(self._in_a_hurry)
        if isinstance(self.state, FetchingModel):
            self.state.fetch.stop(self._in_a_hurry)
        self.engine.stop(self._in_a_hurry)
        self.selector.close()
        self.signals.close()

    def _in_a_hurry(self) -> bool:
        return self.signals.count > 1
