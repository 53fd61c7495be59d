"""Writes config.json, the app config that Flask loads and the engine reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.contract.codec import ContractError
from app.contract.config import AppConfig, EngineConfig, read_config
from app.contract.limits import QUEUE_LIMIT
from app.contract.plan import CPU, Plan, Rung
from entrypoint.model_choice import ModelChoice
from entrypoint.plan.activations import PREFILL_CHUNK
from entrypoint.state.api_key import AccessFiles


def app_config(
    choice: ModelChoice,
    run_dir: Path,
    plan: Plan | None,
    access: AccessFiles,
    request_seconds: int = 0,
    database: Path | None = None,
) -> AppConfig:
    """The app config; without a plan it holds the settings alone."""
    chosen = plan.chosen if plan else None
    return AppConfig(
        MODEL_NAME=choice.name,
        MODEL_PATH=str(choice.folder),
        STATUS_FILE=str(run_dir / "status.json"),
        ENGINE_SOCKET=str(run_dir / "engine.sock"),
        QUEUE_LIMIT=QUEUE_LIMIT,
        REQUEST_SECONDS=request_seconds,
        KEY_FILE=str(access.key_file) if access.key_file else None,
        SESSIONS_FILE=str(access.sessions_file),
        TRUSTED_PROXIES=access.trusted_proxies,
        DATABASE=str(database) if database else None,
        ENGINE=_engine(chosen, plan.host.cpu_count) if plan and chosen else None,
        ORIGINS=plan.origins if plan else (),
    )


def stands(path: Path, config: AppConfig) -> bool:
    """Whether a config.json that can't be replaced says the same, apart from where its values come from."""
    try:
        return replace(read_config(path), ORIGINS=()) == replace(config, ORIGINS=())
    except ContractError:
        return False


def device_map(rung: Rung) -> dict[str, str]:
    """The device of every module, see `EngineConfig.device_map`; nothing is left for the engine to decide."""
    torch_names = {uuid: f"cuda:{index}" for index, uuid in enumerate(rung.gpus)} | {CPU: CPU}
    if not rung.placements:
        return {"": torch_names[rung.devices[0]]}
    modules = {"model.embed_tokens": torch_names[rung.placements[0].device]}
    for placement in rung.placements:
        for layer in range(placement.first_layer, placement.first_layer + placement.layers):
            modules[f"model.layers.{layer}"] = torch_names[placement.device]
    last = torch_names[rung.placements[-1].device]
    return modules | {"model.norm": last, "lm_head": last}


def _engine(rung: Rung, cpu_threads: int) -> EngineConfig:
    return EngineConfig(
        precision=rung.precision,
        compute_dtype=rung.compute_dtype,
        devices=rung.devices,
        device_map=device_map(rung),
        max_model_len=rung.max_model_len,
        max_num_seqs=rung.max_num_seqs,
        prefill_chunk=min(PREFILL_CHUNK, rung.max_model_len),
        planned_bytes=rung.need_bytes,
        cpu_threads=cpu_threads,
    )
