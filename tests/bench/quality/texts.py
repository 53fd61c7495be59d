"""The token ids that are compared, the same at every run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from tools.checkpoints.glm_tokenizer import BYTES, CONTROL_TOKENS
from tools.demo.samples import IGNORED, Sampler

SEED = 13


@dataclass(frozen=True)
class Text:
    """One sequence from its start."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Indexes into `ids` whose next token is compared."""


def demo_texts(checkpoint: Path, count: int) -> list[Text]:
    """Conversations as the demo model was trained on; the tokens of its answers are compared."""
    sampler = Sampler(Tokenizer.from_file(str(checkpoint / "tokenizer.json")), SEED)
    samples = [sampler.sample() for _ in range(count)]
    return [Text(tuple(sample.ids), _predicted(sample.labels)) for sample in samples]


def _predicted(labels: Sequence[int]) -> tuple[int, ...]:
    return tuple(index - 1 for index, label in enumerate(labels) if index and label != IGNORED)


def random_texts(vocab: int, count: int, tokens: int) -> list[Text]:
    """Prompts of random text ids; every position is compared."""
    draw = random.Random(SEED)
    ids = range(len(BYTES), vocab - len(CONTROL_TOKENS))
    return [Text(tuple(draw.choices(ids, k=tokens)), tuple(range(tokens))) for _ in range(count)]
