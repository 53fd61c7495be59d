"""Models loaded and run as the engine does, for the tests of its loader, forward passes and backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from app.contract.config import EngineConfig
from app.contract.plan import Dtype, Precision
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.loading.checkpoint import CheckpointFiles, open_checkpoint
from app.engine.loading.load import load_model
from app.engine.model.kv_cache import SlotCache
from entrypoint.machine.cgroup import cpu_count

CPU = torch.device("cpu")


def engine_config(
    precision: Precision = "fp32",
    dtype: Dtype = "float32",
    *,
    max_model_len: int,
    devices: tuple[str, ...] = ("cpu",),
    device_map: dict[str, str] | None = None,
    max_num_seqs: int = 1,
    prefill_chunk: int = 64,
    planned_bytes: int = 0,
) -> EngineConfig:
    """A config for one device, or for those of `device_map`; `devices` are the names in the plan."""
    return EngineConfig(
        precision=precision,
        compute_dtype=dtype,
        devices=devices,
        device_map=device_map or {"": "cpu"},
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        prefill_chunk=prefill_chunk,
        planned_bytes=planned_bytes,
        cpu_threads=cpu_count(),
    )


def load_quietly(checkpoint: Path | CheckpointFiles, config: EngineConfig) -> Any:
    """The model of a checkpoint, without reports of progress."""
    files = open_checkpoint(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    return load_model(files, config, lambda _bytes: None)


def backend_of(
    model: Any,
    checkpoint: CheckpointFiles,
    *,
    max_model_len: int,
    slots: int = 1,
    prefill_chunk: int = 64,
    dtype: torch.dtype = torch.float32,
    devices: torch.device | tuple[torch.device, ...] = CPU,
) -> TransformersBackend:
    """A backend with a cache of its own over a loaded model."""
    cache = SlotCache(checkpoint.shape, slots, max_model_len, dtype, devices)
    return TransformersBackend(model, cache, prefill_chunk, checkpoint.shape.vocab)
