"""Puts the parts together: checkpoint and config to something that answers. The first room that imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from app.contract.config import EngineConfig
from app.engine.backend.interface import Backend
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.formats.base import ChatFormat
from app.engine.formats.open import open_format
from app.engine.kernels.packed_linear import pack_linear
from app.engine.loading.checkpoint import Checkpoint
from app.engine.loading.load import load_model
from app.engine.loading.placement import placement_of
from app.engine.loading.weights import weights_bytes
from app.engine.model.dense_forward import DensePasses
from app.engine.model.dense_layer import join_projections
from app.engine.model.kv_cache import SlotCache
from app.engine.runtime import process
from app.engine.runtime.events import LoadProgress
from app.engine.sampling import SamplingDefaults, read_defaults
from app.layouts.skeleton import cache_bytes_per_token

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Loaded:
    """A model in its planned memory, and how to speak with it."""

    backend: Backend
    chat: ChatFormat
    defaults: SamplingDefaults
    weights_bytes: int


def load(checkpoint: Checkpoint, config: EngineConfig, progress: LoadProgress) -> Loaded:
    """Loads weights and tokenizer, and allocates the cache.

    Raises:
        BadCheckpoint: the checkpoint cannot be loaded.
        EngineError: the device map does not fit the model.
        RuntimeError: torch could not allocate (see `is_memory_error`).
    """
    torch.set_num_threads(config.cpu_threads)
    place = placement_of(config, checkpoint.shape.layers)
    chat = open_format(checkpoint)
    defaults = read_defaults(checkpoint.folder, chat.defaults)
    model = load_model(checkpoint, config, progress.add)
    process.return_freed_memory()
    progress.finish()
    held = weights_bytes(model)
    dtype = getattr(torch, config.compute_dtype)
    # The cache's memory, not taken yet, is what packing may take meanwhile.
    room = config.max_num_seqs * config.max_model_len * cache_bytes_per_token(checkpoint.shape, dtype.itemsize)
    if place.devices == (CPU,):
        if DensePasses.fit(model):
            join_projections(model)
        pack_linear(model, room)
        process.return_freed_memory()
    cache = SlotCache(checkpoint.shape, config.max_num_seqs, config.max_model_len, dtype, place.layers)
    if config.precision != "int8":  # its products take and free so much of so many sizes that the heap would be gaps
        process.keep_freed_memory()
    backend = TransformersBackend(model, cache, config.prefill_chunk, checkpoint.shape.vocab)
    return Loaded(backend, chat, defaults, held)
