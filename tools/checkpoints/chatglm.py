"""The `chatglm` layout for tools/checkpoints/make_checkpoint.py: what ChatGLM3-6B and GLM-4-9B-chat were published as.

What is not a size comes from the small checkpoints of the tests: fields of config.json (with `auto_map`, which names
code that must never run) and the tokenizer, whose vocabulary may be smaller than the model's.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from app.layouts.chatglm import FIELDS
from app.layouts.config_fields import LayoutError
from app.layouts.registry import LAYOUTS, shape_of
from app.layouts.skeleton import stored_tensors
from tools.checkpoints.shape import CONFIG_NAMES, CheckpointShape, MakeCheckpointError

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "generation_config.json")
INV_FREQ = "transformer.rotary_pos_emb.inv_freq"
"""The published files hold this table, and every loader computes it anew."""


def config_of(shape: CheckpointShape) -> dict[str, Any]:
    """The fields of config.json. Raises MakeCheckpointError where they describe no model of this layout."""
    fixture = FIXTURES / shape.tokenizer
    fields: dict[str, Any] = json.loads((fixture / "config.json").read_text(encoding="utf-8"))
    vocab = fields["padded_vocab_size"]
    if shape.vocab < vocab:
        raise MakeCheckpointError(f"vocab must be at least {vocab}, that of the tokenizer of {shape.tokenizer}")
    for ours, native in CONFIG_NAMES.items():
        fields[FIELDS.get(native, native)] = getattr(shape, ours)
    fields |= {**shape.extra, "torch_dtype": fields.pop("dtype")}
    if "num_hidden_layers" in fields:  # GLM-4-9B-chat names it twice
        fields["num_hidden_layers"] = shape.layers
    try:
        shape_of(fields)
    except LayoutError as error:
        raise MakeCheckpointError(str(error)) from error
    return fields


def tensors_of(fields: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of everything that the files hold."""
    shape = shape_of(fields)
    stored = [(tensor.name, tensor.shape) for tensor in stored_tensors(LAYOUTS["chatglm"], shape)]
    return [*stored[:1], (INV_FREQ, (shape.head_dim // 4,)), *stored[1:]]


def copy_tokenizer(shape: CheckpointShape, folder: Path) -> None:
    """Puts the small tokenizer beside the weights."""
    for name in TOKENIZER_FILES:
        if (path := FIXTURES / shape.tokenizer / name).exists():
            shutil.copyfile(path, folder / name)
