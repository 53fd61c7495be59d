"""The tool-calling fixtures are what their scripts make, and say what they were taught."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.demo.samples import IGNORED
from tools.tool_caller import train, train_chatglm3
from tools.tool_caller.train import WEIGHTS


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_but_weights(made: dict[str, bytes], committed: dict[str, bytes]) -> bool:
    """Whether the script writes the committed files, the trained weights apart."""
    assert committed.keys() == made.keys() | {"README.md"}
    assert sum(len(data) for data in committed.values()) < 1_000_000
    return all(committed[name] == data for name, data in made.items() if name != WEIGHTS)


def learnt_tokens(model: Any, samples: Iterable[tuple[list[int], list[int]]]) -> int:
    """How many tokens had to be learnt; each of them must be the likeliest."""
    count = 0
    for ids, labels in samples:
        with torch.inference_mode():
            picked = model(input_ids=torch.tensor([ids])).logits[0, :-1].argmax(dim=-1).tolist()
        wanted = [(pick, label) for pick, label in zip(picked, labels[1:], strict=True) if label != IGNORED]
        assert all(pick == label for pick, label in wanted)
        count += len(wanted)
    return count


def test_glm45s_files_and_what_it_learnt(tmp_path: Path) -> None:
    folder = train.FIXTURE
    train.write_all_but_weights(tmp_path)
    (tmp_path / WEIGHTS).touch()
    assert same_but_weights(files(tmp_path), files(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert learnt_tokens(model, train.samples(folder)) > 500


def test_chatglm3s_files_and_what_it_learnt(tmp_path: Path) -> None:
    folder = train_chatglm3.FIXTURE
    make_checkpoint(tmp_path, train_chatglm3.SHAPE)
    assert same_but_weights(files(tmp_path), files(folder))
    model = train_chatglm3.load(folder)
    assert learnt_tokens(model, train_chatglm3.samples(folder)) > 400
