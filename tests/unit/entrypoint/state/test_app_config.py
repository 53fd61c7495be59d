"""What the app config hands to the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from entrypoint.model_choice import DEMO_NAME, resolve_model
from entrypoint.plan.planner import make_plan
from entrypoint.settings.settings import Settings
from entrypoint.state.api_key import AccessFiles
from entrypoint.state.app_config import app_config
from tests.unit.planning import HOST, SMALL, plan_inputs


def test_the_engine_gets_the_cores_that_were_counted(tmp_path: Path) -> None:
    plan = make_plan(plan_inputs(SMALL, host=replace(HOST, cpu_count=5)))
    choice = resolve_model(Settings(model=DEMO_NAME))
    config = app_config(choice, tmp_path, plan, AccessFiles(None, tmp_path, 0))
    assert config.ENGINE is not None and config.ENGINE.cpu_threads == 5
