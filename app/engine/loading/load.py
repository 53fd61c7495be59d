"""Loads a checkpoint into a model, a few megabytes at a time, so that loading takes little more memory than the model.

transformers' own loader is fast, but its memory use can't be planned: it leaves 16-bit weights in the mapped file on
the CPU, and quantises whole tensors. Here each tensor is read in blocks of rows, converted, and written to its place.
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
from app.contract.plan import CPU
from app.engine.errors import BadCheckpoint
from app.engine.kernels.bf16_linear import swap_bf16_linear
from app.engine.kernels.experts import steer_experts
from app.engine.kernels.latent_slices import slice_latents
from app.engine.loading.checkpoint import CheckpointFiles, StoredRows, open_file
from app.engine.loading.placement import DeviceMap, device_map_of, move_between_devices
from app.engine.loading.quantise import QuantiserByDevice, quantiser_for
from app.engine.loading.weights import PlainWeights, RowBlock, row_blocks, set_parameter

NATIVE_CLASSES = {
    "glm": ("GlmConfig", "GlmForCausalLM"),
    "glm4": ("Glm4Config", "Glm4ForCausalLM"),
    "glm4_moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM"),
    "glm4_moe_lite": ("Glm4MoeLiteConfig", "Glm4MoeLiteForCausalLM"),
}
"""By native `model_type`: the config and the model in `transformers.models.<model_type>`. Importing that module alone
takes a third of the time of the automatic classes."""

Fill = Callable[[Any, StoredRows, Iterator[RowBlock]], None]
"""Sets a parameter of the model from the blocks of its stored rows."""

log = logging.getLogger(__name__)


def load_model(checkpoint: CheckpointFiles, config: EngineConfig, loaded: Callable[[int], None]) -> Any:
    """Builds the model, in evaluation mode, on the devices and in the precision that `config` says.

    `loaded` is called with the stored bytes of each block that has been loaded.

    Raises:
        BadCheckpoint: a weight cannot be read or quantised.
        EngineError: the device map does not fit the model.
    """
    devices, dtype = device_map_of(config, checkpoint.shape.layers), getattr(torch, config.compute_dtype)
    model = build_skeleton(checkpoint, dtype)
    fill: Fill = PlainWeights(devices, dtype).fill
    quantiser: QuantiserByDevice | None = None
    if config.precision in ("int8", "int4") and not checkpoint.quantised:
        quantiser = quantiser_for(config.precision, model, checkpoint, devices, dtype)
    if checkpoint.quantised:
        from app.engine.loading.prequantised import PrequantisedLoader

        prequantised = PrequantisedLoader(checkpoint, config.precision, model, devices, dtype)
    swap_bf16_linear(model, lambda name: dtype == torch.bfloat16 and devices.of(f"{name}.weight").type == CPU)
    for path, in_file in itertools.groupby(checkpoint.tensors, lambda rows: rows.file):
        with open_file(path) as file:
            for rows in in_file:
                if checkpoint.quantised and rows.parameter.linear:
                    prequantised.fill(model, rows, file)
                    loaded(rows.stored_bytes)
                    continue
                block_dtype = torch.float32 if rows.parameter.full_precision else dtype
                blocks = row_blocks(file, rows, devices.of(rows.parameter.name), block_dtype, loaded)
                (quantiser.fill if quantiser and rows.parameter.linear else fill)(model, rows, blocks)
    if quantiser:
        quantiser.finish()
    if checkpoint.quantised:
        prequantised.finish()
    _finish(model, checkpoint, devices)
    if checkpoint.shape.experts:
        steer_experts(model)
    if checkpoint.shape.latent:
        slice_latents(model, everywhere=config.precision == "int8")
    move_between_devices(model, devices)
    return model


def native_classes(native: str) -> tuple[Any, Any]:
    """transformers' config and model class of a native `model_type`; `build_skeleton` imports nothing beyond them."""
    config_name, model_name = NATIVE_CLASSES[native]
    config_module = importlib.import_module(f"transformers.models.{native}.configuration_{native}")
    model_module = importlib.import_module(f"transformers.models.{native}.modeling_{native}")
    return getattr(config_module, config_name), getattr(model_module, model_name)


def build_skeleton(checkpoint: CheckpointFiles, dtype: torch.dtype) -> Any:
    """The native class without memory for its weights. Raises BadCheckpoint if transformers refuses the config."""
    from transformers.initialization import no_init_weights

    config_class, model_class = native_classes(checkpoint.layout.native)
    try:
        if checkpoint.native_config is None:
            config = config_class.from_pretrained(str(checkpoint.folder), local_files_only=True)
        else:
            config = config_class(**checkpoint.native_config)
        config._attn_implementation = "sdpa"
        config.dtype = dtype
        # Drawing random weights that have no memory would change nothing, and would import torch's compiler.
        with no_init_weights(), _MetaWeights():
            return model_class(config)
    except Exception as error:  # transformers raises errors of any kind here
        raise BadCheckpoint(f"transformers refuses config.json: {error}") from error


class _MetaWeights(TorchFunctionMode):
    """Gives weights no memory. Computed numbers stay on the CPU, unlike under `torch.device("meta")`."""

    constructors = frozenset({torch.empty, torch.ones, torch.zeros})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        if func in self.constructors and keywords.get("device") is None:
            keywords["device"] = "meta"
        return func(*args, **keywords)


def _finish(model: Any, checkpoint: CheckpointFiles, devices: DeviceMap) -> None:
    if checkpoint.shape.tied:
        embedding = model.model.embed_tokens.weight
        # On another device than the embedding, the head needs a copy.
        shared = devices.head == devices.embedding
        set_parameter(model, "lm_head.weight", embedding if shared else embedding.detach().to(devices.head))
    # Buffers are computed, not stored: on the meta device they have no values.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(devices.embedding)
    model.requires_grad_(False)
    model.eval()
    empty = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if empty:
        raise BadCheckpoint(f"{len(empty)} tensors were not loaded, such as {empty[0]}")
