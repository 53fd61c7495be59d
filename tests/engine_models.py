"""Models loaded and run as the engine does, for the tests of its loader, forward passes and backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app.contract.config import EngineConfig
from app.contract.plan import Dtype, Precision
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.kernels import int4_linear
from app.engine.kernels.cpu_kind import cpu_kind, packs_int8_for_avx512
from app.engine.loading.checkpoint import CheckpointFiles, open_checkpoint
from app.engine.loading.load import load_model
from app.engine.model.kv_cache import SlotCache
from entrypoint.machine.cgroup import cpu_count
from entrypoint.plan.footprint import Load

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


def on_cpu(load: Load) -> Load:
    """What the plan counts on this CPU."""
    return replace(
        load,
        cpu_form=load.precision in ("int8", "int4"),
        avx512=packs_int8_for_avx512(),
        native_bf16=cpu_kind() == "bf16",
    )


def round_weights(model: Any, checkpoint: CheckpointFiles, precision: Precision) -> None:
    """Gives transformers' own model the weights that the CPU's int8 or int4 stands for, one row or group at a time."""
    for tensor in checkpoint.tensors:
        if not tensor.parameter.linear:
            continue
        weight = model.get_parameter(tensor.parameter.name).data
        if precision == "int8":
            scale = weight.float().abs().amax(1, keepdim=True) / 127
            weight.copy_((weight.float() / scale).round() * scale)
        else:
            codes, groups = int4_linear.quantised(weight)
            level, zero = groups.float().repeat_interleave(64, dim=1).unbind(-1)
            weight.copy_((codes - 8) * level + zero)


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
