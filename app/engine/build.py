"""Builds the engine from a checkpoint and its config. The first module that imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from app.contract.config import EngineConfig
from app.contract.plan import CPU
from app.engine.backend.interface import Backend
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.formats.base import ChatFormat
from app.engine.formats.open import open_format
from app.engine.kernels.packed_linear import pack_linear
from app.engine.loading.checkpoint import CheckpointFiles
from app.engine.loading.load import load_model
from app.engine.loading.placement import device_map_of
from app.engine.loading.weights import weights_bytes
from app.engine.model.dense_forward import DenseForward
from app.engine.model.dense_layer import join_projections
from app.engine.model.kv_cache import SlotCache
from app.engine.runtime import process
from app.engine.runtime.events import LoadProgress
from app.engine.sampling import SamplingDefaults, read_defaults
from app.layouts.skeleton import cache_bytes_per_token

CPU_DEVICE = torch.device(CPU)


@dataclass(frozen=True)
class LoadedModel:
    """A model in its planned memory, and its chat format."""

    backend: Backend
    chat: ChatFormat
    defaults: SamplingDefaults
    weights_bytes: int


def load(checkpoint: CheckpointFiles, config: EngineConfig, progress: LoadProgress) -> LoadedModel:
    """Loads weights and tokenizer, and allocates the cache.

    Raises:
        BadCheckpoint: the checkpoint cannot be loaded.
        EngineError: the device map does not fit the model.
        RuntimeError: torch could not allocate (see `is_memory_error`).
    """
    torch.set_num_threads(config.cpu_threads)
    devices = device_map_of(config, checkpoint.shape.layers)
    chat = open_format(checkpoint)
    defaults = read_defaults(checkpoint.folder, chat.defaults)
    model = load_model(checkpoint, config, progress.add)
    process.return_freed_memory()
    progress.finish()
    loaded_bytes = weights_bytes(model)
    dtype = getattr(torch, config.compute_dtype)
    # Packing may use the cache's memory, which is not allocated yet.
    cache_bytes = config.max_num_seqs * config.max_model_len * cache_bytes_per_token(checkpoint.shape, dtype.itemsize)
    if devices.used == (CPU_DEVICE,):
        if DenseForward.supports(model):
            join_projections(model)
        pack_linear(model, cache_bytes)
        process.return_freed_memory()
    cache = SlotCache(checkpoint.shape, config.max_num_seqs, config.max_model_len, dtype, devices.layers)
    process.keep_freed_memory()
    backend = TransformersBackend(model, cache, config.prefill_chunk, checkpoint.shape.vocab)
    return LoadedModel(backend, chat, defaults, loaded_bytes)
