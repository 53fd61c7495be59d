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
from app.engine.checkpoint import Checkpoint, StoredTensor, open_file
from app.engine.errors import BadCheckpoint
from app.engine.kernels.experts import steer_experts
from app.engine.kernels.latent_slices import slice_latents
from app.engine.placement import Placement, connect, placement_of
from app.layouts import LAYOUTS, LOAD_PIECE_ELEMENTS

NATIVE_CLASSES = {
    "glm": ("GlmConfig", "GlmForCausalLM"),
    "glm4": ("Glm4Config", "Glm4ForCausalLM"),
    "glm4_moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM"),
    "glm4_moe_lite": ("Glm4MoeLiteConfig", "Glm4MoeLiteForCausalLM"),
}
"""By native `model_type`: the config and the model in `transformers.models.<model_type>`. Importing the one module
takes a third of the time that the automatic classes take."""

Piece = tuple[int, int, torch.Tensor]
"""First row of the parameter, row behind the last, and the rows between, converted and on the device."""

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
        from app.engine.quantise import quantiser_for

        quantised = quantiser_for(config.precision, model, checkpoint, place, dtype).fill
    if checkpoint.quantised:
        from app.engine.stored import Restorer

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


def set_parameter(model: Any, name: str, value: torch.Tensor) -> None:
    """Puts a tensor where the skeleton's empty one was."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers or isinstance(value, torch.nn.Parameter):
        setattr(module, leaf, value)
    else:
        setattr(module, leaf, torch.nn.Parameter(value, requires_grad=False))


class _Plain:
    """Weights in the compute dtype."""

    def __init__(self, place: Placement, dtype: torch.dtype) -> None:
        self._place, self._dtype = place, dtype

    def fill(self, model: Any, stored: StoredTensor, pieces: Iterator[Piece]) -> None:
        """Copies the pieces into memory of their own, made at the first of a parameter's parts."""
        parameter = stored.parameter
        path, _, leaf = parameter.name.rpartition(".")
        target = getattr(model.get_submodule(path), leaf)
        if target.is_meta:
            dtype = torch.float32 if parameter.full_precision else self._dtype
            target = torch.empty(parameter.shape, dtype=dtype, device=self._place.of(parameter.name))
            set_parameter(model, parameter.name, target)
        rows_of_all = target.data.view(parameter.rows, -1)
        for start, end, rows in pieces:
            rows_of_all[start:end].copy_(rows.view(end - start, -1))


def _pieces(
    opened: Any, stored: StoredTensor, device: torch.device, dtype: torch.dtype, loaded: Callable[[int], None]
) -> Iterator[Piece]:
    rows = stored.part.rows
    per_row = stored.part.elements // rows
    # Multiples of 32 rows: the CPU's 4-bit kernel packs so many together.
    step = max(32, LOAD_PIECE_ELEMENTS // per_row // 32 * 32)
    source, first = opened.get_slice(stored.name), stored.first_row
    for start in range(0, rows, step):
        end = min(start + step, rows)
        # In the file's dtype until it is on the device: half the bytes to copy, and no second host buffer.
        piece = source[first + start : first + end].to(device).to(dtype)
        yield stored.part.first_row + start, stored.part.first_row + end, piece
        loaded(stored.stored_bytes * (end - start) // rows)


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


def weights_bytes(model: Any) -> int:
    """Bytes of all parameters, stored buffers and quantisation states, each piece of memory counted once."""
    seen: dict[tuple[torch.device, int], int] = {}
    for weight in (*model.parameters(), *_stored_buffers(model)):
        for tensor in (weight, *_states(weight)):
            seen[tensor.device, tensor.data_ptr()] = tensor.nbytes
    return sum(seen.values())


def _stored_buffers(model: Any) -> Iterator[torch.Tensor]:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield buffer


def _states(parameter: Any) -> Iterator[torch.Tensor]:
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    candidates = (
        getattr(parameter, "SCB", None),
        *(getattr(state, name, None) for name in ("absmax", "code", "offset")),
        *(getattr(nested, name, None) for name in ("absmax", "code")),
    )
    yield from (tensor for tensor in candidates if isinstance(tensor, torch.Tensor))


assert NATIVE_CLASSES.keys() == {layout.native for layout in LAYOUTS.values()}, "every layout needs its native class"
