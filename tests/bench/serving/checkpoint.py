"""The checkpoint that is served: random weights whose greedy answers never end early and say ASCII at each token."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tools.checkpoints.glm_tokenizer import BYTES, CONTROL_TOKENS
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(hidden=1024, layers=16, heads=16, kv_heads=2, head_dim=64, intermediate=4096, vocab=8192)
HEAD = "lm_head.weight"


def speaking_checkpoint(cache: Path, shape: CheckpointShape = SHAPE) -> Path:
    """Made once."""
    folder = cache / f"glm4-{shape.hidden}x{shape.layers}"
    if not (folder / "finished").exists():
        make_checkpoint(folder, shape)
        silence(folder / "model.safetensors", shape)
        (folder / "finished").touch()
    return folder


def silence(path: Path, shape: CheckpointShape) -> None:
    """Zeroes the head's rows of all ids that are no text: single bytes, and control tokens, stop ids among them.

    Their logits are 0, which is never the largest of thousands of random ones; so no server needs an option for it.
    """
    row = 2 * shape.hidden
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start = 8 + length + json.loads(file.read(length))[HEAD]["data_offsets"][0]
        for first, count in ((0, len(BYTES)), (shape.vocab - len(CONTROL_TOKENS), len(CONTROL_TOKENS))):
            file.seek(start + first * row)
            file.write(bytes(count * row))
