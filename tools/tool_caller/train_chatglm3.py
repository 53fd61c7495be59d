"""Trains the checkpoint of tests/fixtures/chatglm3-caller: ChatGLM3's published layout and format, and it calls tools.

    python -m tools.tool_caller.train_chatglm3 OUT_DIR       (about two minutes on two cores)

Like tools/tool_caller/train.py, with its talks that have no reasoning and at most one call.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Read when torch is imported: threads that spin at every barrier slow each other down if the cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import save_file

from app.contract.config import EngineConfig
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.formats.chatglm3 import CONTROL_TOKENS
from app.engine.formats.open import load_format
from app.engine.formats.parsing.calls import python_call
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.loading.load import load_model
from app.layouts.chatglm import TENSOR_NAMES
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape
from tools.demo.samples import IGNORED
from tools.tool_caller.talks import Talk, talks
from tools.tool_caller.train import THREADS, WEIGHTS, batches, train

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "chatglm3-caller"
SHAPE = CheckpointShape(
    model_type="chatglm",
    hidden=128,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate=128,
    vocab=832,
    context=2048,
    dtype="float16",
)
STEPS = 300


def expressible_talks() -> Iterator[Talk]:
    """The talks that this format can express."""
    return (talk for talk in talks() if talk.thought is None and len(talk.calls) < 2)


def assistant_turn(talk: Talk) -> tuple[str, str]:
    """The line of metadata and the content of the assistant's turn."""
    if not talk.calls:
        return "", talk.text
    ((name, arguments),) = talk.calls
    return name, python_call(arguments)


def sample(talk: Talk, chat: ChatFormat) -> tuple[list[int], list[int]]:
    """Ids and labels of a talk; only tokens that the model writes by itself have labels."""
    prompt = chat.prompt(PromptRequest(talk.messages, talk.tools, talk.choice, talk.thinking))
    name, content = assistant_turn(talk)
    stop = chat.id_limit - len(CONTROL_TOKENS) + CONTROL_TOKENS.index(talk.stop)
    ids = [*prompt.ids, *chat.encode(f"{name}\n"), *chat.encode(content), stop]
    read = len(prompt.ids) + (len(prompt.required_prefixes[0]) if prompt.required_prefixes else 0)
    return ids, [IGNORED] * read + ids[read:]


def samples(folder: Path) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of every talk, by the tokenizer in `folder`."""
    chat = load_format(folder, SHAPE.vocab)
    return (sample(talk, chat) for talk in expressible_talks())


def load(folder: Path) -> Any:
    """The checkpoint in `folder` as the engine loads it, in float32."""
    config = EngineConfig(
        precision="fp32",
        compute_dtype="float32",
        devices=("cpu",),
        device_map={"": "cpu"},
        max_model_len=SHAPE.context,
        max_num_seqs=1,
        prefill_chunk=512,
        planned_bytes=0,
        cpu_threads=2,
    )
    return load_model(open_checkpoint(folder), config, lambda _count: None)


def stored(model: Any) -> dict[str, torch.Tensor]:
    """The parameters by their names in the published layout, joined if they are stored in one tensor."""
    parts: dict[str, list[torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        for native, published in TENSOR_NAMES:
            name = name.replace(native, published)
        parts.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors).half() for name, tensors in parts.items()}


def make(folder: Path, steps: int, seed: int) -> None:
    """Trains from random weights, in the new or empty `folder`, which then holds config, tokenizer and fp16 weights."""
    torch.manual_seed(seed)
    make_checkpoint(folder, SHAPE, seed=seed)
    model = load(folder)
    model.requires_grad_(True)
    train(model, batches(list(samples(folder))), steps)
    save_file(stored(model), folder / WEIGHTS, {"format": "pt"})  # in place of the random ones
    (folder / WEIGHTS).chmod(0o644)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="train_chatglm3_caller", description="Train ChatGLM3's tool-calling fixture.")
    parser.add_argument("folder", type=Path, help="a new or empty one")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    make(options.folder, options.steps, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
