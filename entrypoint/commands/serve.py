"""`serve`: checks what must be right before anything starts, runs the supervisor, and cleans up."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from app.contract.status import Status
from entrypoint.messages.sentence import text
from entrypoint.model_choice import resolve_model
from entrypoint.settings.settings import Settings, address
from entrypoint.state.api_key import how_to_open, open_access
from entrypoint.state.state_dir import RUN_DIR, make_run_dir, open_state
from entrypoint.state.status_writer import StatusWriter
from entrypoint.supervisor.listener import bind
from entrypoint.supervisor.supervisor import Supervisor

VERSION = "0.1.0"


def serve(settings: Settings) -> int:
    """Runs the service until it is told to stop; returns the exit code.

    Raises:
        SettingsError: a setting, the port or the state directory is wrong.
        CheckpointError: the model can't be read.
    """
    choice = resolve_model(settings)
    state, lock = open_state(settings.state_dir)
    with bind(settings) as listener:
        run_dir = make_run_dir()
        try:
            now = time.time()
            status = Status(
                phase="starting",
                since=now,
                started_at=now,
                version=VERSION,
                model_name=choice.name,
                model_why=text(choice.why),
                address=address(settings),
            )
            writer = StatusWriter(run_dir / "status.json", status)
            access = open_access(settings, state, run_dir)
            opening = how_to_open(settings, state)
            sys.stderr.write(f"Berth {VERSION} is starting; see the page for progress. {opening}\n")
            return Supervisor(settings, choice, state, run_dir, listener, writer, access).run()
        finally:
            _clear(run_dir)
            os.close(lock)


def _clear(run_dir: Path) -> None:
    if run_dir != RUN_DIR:
        shutil.rmtree(run_dir, ignore_errors=True)
