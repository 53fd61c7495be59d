"""The dimensions of a GLM checkpoint, set by hand or those of a published one."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.layouts import chatglm
from tools.checkpoints.glm_tokenizer import MIN_VOCAB

PUBLISHED_SHAPES = Path(__file__).with_name("published_shapes.json")
WEIGHT_DTYPES = ("bfloat16", "float16", "float32")
# Our names for the fields of a transformers config.
CONFIG_NAMES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
    "attention_bias": "attention_bias",
    "tied": "tie_word_embeddings",
    "dtype": "dtype",
}
# Facts about the published files, and ids that belong to the published tokenizer.
NOT_CONFIG = {"source", "model_type", "parameters", "files", "eos_token_id", "tokenizer"}
CHATGLM_TOKENIZER = "chatglm3-tiny"


class MakeCheckpointError(ValueError):
    """The checkpoint cannot be written; the text is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class CheckpointShape:
    """A model's dimensions; `extra` holds further fields of the model type's config (experts, MLA ranks, ...)."""

    model_type: str = "glm4"
    hidden: int = 1024
    layers: int = 16
    heads: int = 16
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 4096
    vocab: int = 8192
    context: int = 8192
    attention_bias: bool = True
    tied: bool = False
    dtype: str = "bfloat16"
    extra: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = CHATGLM_TOKENIZER
    """For the chatglm layout: the folder of tests/fixtures with the tokenizer."""

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "context"):
            if getattr(self, name) < 1:
                raise MakeCheckpointError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise MakeCheckpointError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 4:
            raise MakeCheckpointError(
                f"head_dim ({self.head_dim}) must be a multiple of 4: rotary pairs fill half of it"
            )
        if self.vocab < MIN_VOCAB:
            raise MakeCheckpointError(
                f"vocab must be at least {MIN_VOCAB} (bytes and control tokens), not {self.vocab}"
            )
        if self.dtype not in WEIGHT_DTYPES:
            raise MakeCheckpointError(f"dtype must be one of {', '.join(WEIGHT_DTYPES)}, not {self.dtype}")

    @classmethod
    def published(cls, name: str, shapes: Path = PUBLISHED_SHAPES, **changes: Any) -> "CheckpointShape":
        """The shape of a published checkpoint, from a JSON file of config fields by hub id."""
        try:
            known = json.loads(shapes.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MakeCheckpointError(f"cannot read shapes from {shapes}: {error}") from error
        entry = known.get(name)
        if not isinstance(entry, dict):
            near = difflib.get_close_matches(name, known, 1, 0.0)
            raise MakeCheckpointError(f"{name} is not in {shapes}; the nearest is {near[0] if near else 'none'}")
        names = CONFIG_NAMES
        if entry["model_type"] == "chatglm":
            names = {ours: chatglm.FIELDS.get(native, native) for ours, native in CONFIG_NAMES.items()}
        fields = {ours: entry[theirs] for ours, theirs in names.items() if theirs in entry}
        fields |= {key: entry[key] for key in ("model_type", "tokenizer") if key in entry}
        extra = {key: entry[key] for key in entry if key not in names.values() and key not in NOT_CONFIG}
        return cls(**{"extra": extra, **fields, **changes})
