"""A checkpoint's config.json and headers: everything the plan needs. Weights are not read."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.layouts.chatglm import is_rank_list, is_sentencepiece
from app.layouts.config_fields import LayoutError
from app.layouts.layout import Layout
from app.layouts.quantisation import floats_only, quantised_of
from app.layouts.registry import layout_of, shape_of
from app.layouts.shape import Shape
from app.layouts.skeleton import skeleton, stored_tensors
from entrypoint.checkpoint.quantised import StoredFormat, check_float, check_stored
from entrypoint.checkpoint.safetensors_header import DTYPE_BYTES, CheckpointError, HeaderTensor
from entrypoint.checkpoint.source import LocalFolder, Source
from entrypoint.checkpoint.torch_index import CONFIG_DTYPES

__all__ = ["Checkpoint", "CheckpointError", "check_checkpoint", "read_checkpoint"]
MOST_REASON_CHARACTERS = 300
"""A reason may quote a value of the config, which may be megabytes."""


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint: it has every parameter of the layout's skeleton, with the right shape."""

    layout: Layout
    shape: Shape
    tensors: Mapping[str, HeaderTensor]
    stored: StoredFormat | None = None
    """None if the weights are stored as floats."""

    @property
    def parameters(self) -> int:
        """Number of elements of the loaded model."""
        return sum(parameter.elements for parameter in skeleton(self.layout, self.shape))

    @property
    def stored_bytes(self) -> int:
        """Size of all tensors on disk."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def stored_dtype(self) -> str:
        """The dtype of most of the bytes, by its name in safetensors."""
        sizes: collections.Counter[str] = collections.Counter()
        for tensor in self.tensors.values():
            sizes[tensor.dtype] += tensor.bytes
        return sizes.most_common(1)[0][0]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads and checks a local checkpoint folder. Raises CheckpointError as `check_checkpoint` does."""
    return check_checkpoint(LocalFolder(folder))


def check_checkpoint(source: Source) -> Checkpoint:
    """Reads a checkpoint's config and headers and checks them against its layout.

    Raises:
        CheckpointError: its text names the file, the fault and the remedy.
    """
    config = source.read_json("config.json")
    try:
        layout, shape, quantised = layout_of(config), shape_of(config), quantised_of(config)
    except LayoutError as error:
        raise CheckpointError(f"{source.path('config.json')}: {str(error)[:MOST_REASON_CHARACTERS]}") from error
    tensors = source.tensors()
    stored = None
    if quantised:
        stored = check_stored(source.path(""), layout, shape, tensors, quantised)
    else:
        _check_tensors(source.path(""), layout, shape, tensors)
    if layout.tokenizer_model:
        _check_tokenizer(source)
    return Checkpoint(layout, shape, tensors, stored)


def _check_tensors(path: str, layout: Layout, shape: Shape, tensors: Mapping[str, HeaderTensor]) -> None:
    expected = stored_tensors(layout, shape)
    for stored in expected:
        check_float(path, stored, tensors)
    unknown = tensors.keys() - {stored.name for stored in expected}
    extra = min((name for name in unknown if not layout.ignores(name, shape)), default=None)
    if extra is not None:
        raise CheckpointError(f"{path}: tensor {extra[:80]!r} is not part of a {layout.model_type} model")


def _check_tokenizer(source: Source) -> None:
    """Checked now, since the engine would find it only after it has read the weights."""
    start = source.start_of("tokenizer.model", 16)
    if not (is_sentencepiece(start) or is_rank_list(start)):
        raise CheckpointError(
            f"{source.path('tokenizer.model')} is neither ChatGLM3's SentencePiece model nor GLM-4-9B-chat's list of "
            "ranks; download it again"
        )


def checkpoint_from_config(config: Mapping[str, object], name: str = "config.json") -> Checkpoint:
    """Every tensor that a model of this config has, in its `dtype` (bfloat16 if the config has none).

    Raises:
        CheckpointError: the layout of the config is unknown, or a field is missing; the text begins with `name`.
    """
    try:
        floats_only(config)
        layout, shape = layout_of(config), shape_of(config)
    except LayoutError as error:
        raise CheckpointError(f"{name}: {error}") from error
    dtype = CONFIG_DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "BF16")
    tensors = {}
    for stored in stored_tensors(layout, shape):
        kind = "F32" if stored.parts[0].parameter.full_precision else dtype
        tensors[stored.name] = HeaderTensor("", kind, stored.shape, stored.elements * DTYPE_BYTES[kind])
    return Checkpoint(layout, shape, tensors)
