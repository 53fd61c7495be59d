"""Checkpoint to model, a few megabytes at a time, so that loading takes little more memory than the model itself.

transformers' own loader is fast, but what it holds meanwhile is not ours to plan: it leaves 16-bit weights in the
file mapping on the CPU, and quantises tensors whole. Here each one is read in pieces of rows, converted, and
written to where it stays.
"""

from __future__ import annotations

import importlib
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from app.contract.config import EngineConfig
from app.engine.errors import BadCheckpoint
from app.engine.kernels.experts import steer_experts
from app.engine.kernels.latent_slices import slice_latents
from app.engine.loading.checkpoint import Checkpoint, StoredTensor, open_file
from app.engine.loading.placement import Placement, connect, placement_of
from app.engine.loading.weights import Piece, _pieces, _Plain, set_parameter
from app.layouts.registry import LAYOUTS

NATIVE_CLASSES = {
    "glm": ("GlmConfig", "GlmForCausalLM"),
    "glm4": ("Glm4Config", "Glm4ForCausalLM"),
    "glm4_moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM"),
    "glm4_moe_lite": ("Glm4MoeLiteConfig", "Glm4MoeLiteForCausalLM"),
}
"""By native `model_type`: the config and the model in `transformers.models.<model_type>`. Importing the one module
takes a third of the time that the automatic classes take."""


log = logging.getLogger(__name__)


def load_model(checkpoint: Checkpoint, config: EngineConfig, loaded: Callable[[int], None]) -> Any:
    """Builds the model, in evaluation mode, on the devices and in the precision that `config` says.

    `loaded` is called with the stored bytes of each piece that is in place.

    Raises:
        BadCheckpoint: a weight cannot be read or quantised.
        EngineError: the device map does not fit the model.
    """
    place, dtype = placement_of(config, checkpoint.shape.layers), getattr(torch, config.compute_dtype)
    model = build_skeleton(checkpoint, dtype)
    fill: Callable[[Any, StoredTensor, Iterator[Piece]], None] = _Plain(place, dtype).fill
    quantised: Callable[[Any, StoredTensor, Iterator[Piece]], None] | None = None
    if config.precision in ("int8", "int4") and not checkpoint.quantised:
        from app.engine.loading.quantise import quantiser_for

        quantised = quantiser_for(config.precision, model, checkpoint, place, dtype).fill
    if checkpoint.quantised:
        from app.engine.loading.prequantised import Restorer

        restorer = Restorer(checkpoint, config.precision, model, place, dtype)
    for path, in_file in itertools.groupby(checkpoint.tensors, lambda stored: stored.file):
        with open_file(path) as opened:
            for stored in in_file:
                if checkpoint.quantised and stored.parameter.linear:
                    restorer.fill(model, stored, opened)
                    loaded(stored.stored_bytes)
                    continue
                wanted = torch.float32 if stored.parameter.full_precision else dtype
                pieces = _pieces(opened, stored, place.of(stored.parameter.name), wanted, loaded)
                (quantised if quantised and stored.parameter.linear else fill)(model, stored, pieces)
    _finish(model, checkpoint, place)
    if checkpoint.shape.experts:
        steer_experts(model)
    if checkpoint.shape.latent:
        slice_latents(model, everywhere=config.precision == "int8")
    connect(model, place)
    return model


def native_classes(native: str) -> tuple[Any, Any]:
    """transformers' config and model of a native `model_type`; `build_skeleton` imports nothing that it needs more."""
    config_name, model_name = NATIVE_CLASSES[native]
    config_module = importlib.import_module(f"transformers.models.{native}.configuration_{native}")
    model_module = importlib.import_module(f"transformers.models.{native}.modeling_{native}")
    return getattr(config_module, config_name), getattr(model_module, model_name)


def build_skeleton(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The native class without memory for its weights. Raises BadCheckpoint where transformers refuses the config."""
    from transformers.initialization import no_init_weights

    config_class, model_class = native_classes(checkpoint.layout.native)
    try:
        if checkpoint.native_config is None:
            config = config_class.from_pretrained(str(checkpoint.folder), local_files_only=True)
        else:
            config = config_class(**checkpoint.native_config)
        config._attn_implementation = "sdpa"
        config.dtype = dtype
        # Drawing random weights without memory would change nothing, and import torch's compiler.
        with no_init_weights(), _OnMeta():
            return model_class(config)
    except Exception as error:  # transformers raises what it likes here
        raise BadCheckpoint(f"transformers refuses config.json: {error}") from error


class _OnMeta(TorchFunctionMode):
    """Gives weights no memory. What is computed with numbers stays on the CPU, unlike under `torch.device("meta")`."""

    makers = frozenset({torch.empty, torch.ones, torch.zeros})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func in self.makers and named.get("device") is None:
            named["device"] = "meta"
        return func(*args, **named)


def _finish(model: Any, checkpoint: Checkpoint, place: Placement) -> None:
    if checkpoint.shape.tied:
        embedding = model.model.embed_tokens.weight
        # Far from the embedding, the head needs a copy of its own.
        near = place.head == place.embedding
        set_parameter(model, "lm_head.weight", embedding if near else embedding.detach().to(place.head))
    # Buffers are computed, not stored: on the meta device they came out empty.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(place.embedding)
    model.requires_grad_(False)
    model.eval()
    empty = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if empty:
        raise BadCheckpoint(f"{len(empty)} tensors were left empty, {empty[0]} among them")


assert NATIVE_CLASSES.keys() == {layout.native for layout in LAYOUTS.values()}, "every layout needs its native class"
