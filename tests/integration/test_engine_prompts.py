"""How prompts are computed: none holds another up, and products have few sizes up to the context's very end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.config import EngineConfig
from app.engine import load
from app.engine.backend import TokenRequest
from app.engine.cache import SlotCache
from app.engine.checkpoint import open_checkpoint
from app.engine.rows import filled_down, filled_up
from app.engine.transformers_backend import TransformersBackend
from tests.families import make_family
from tests.tokens import GREEDY

LENGTH, CHUNK = 320, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / "checkpoint"
    make_family(folder, "glm4")
    return folder


@pytest.fixture
def backend(folder: Path) -> TransformersBackend:
    config = EngineConfig("fp32", "float32", "cpu", {"": "cpu"}, LENGTH, 1, CHUNK, 0)
    checkpoint = open_checkpoint(folder)
    model = load.load_model(checkpoint, config, lambda _count: None)
    cache = SlotCache(checkpoint.shape, 3, LENGTH, torch.float32, torch.device("cpu"))
    return TransformersBackend(model, cache, CHUNK, checkpoint.shape.vocab)


def first_token(backend: TransformersBackend) -> int:
    """Steps until somebody has a token; whose slot it is."""
    while not (new := backend.step()):
        pass
    assert isinstance(new[0].token, int)
    return new[0].slot


def prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple((7 * place + 31 * seed) % 900 for place in range(1, count + 1))


def test_a_short_prompt_does_not_wait_for_a_long_one(backend: TransformersBackend) -> None:
    long = backend.start(TokenRequest(prompt(319), GREEDY))
    short = backend.start(TokenRequest(prompt(3, 1), GREEDY))
    assert first_token(backend) == short
    backend.stop(short)
    assert first_token(backend) == long, "and the long one comes to its end"


def test_short_prompts_that_keep_coming_do_not_starve_a_long_one(backend: TransformersBackend) -> None:
    long = backend.start(TokenRequest(prompt(319), GREEDY))
    for seed in range(1, 9):
        backend.start(TokenRequest(prompt(3, seed), GREEDY))
        if (slot := first_token(backend)) == long:
            return
        backend.stop(slot)
    pytest.fail("eight short prompts went before the long one")


def test_products_have_few_sizes_up_to_the_end_of_the_context(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size costs compiled code that stays; prompts that end at the context's end could have any."""
    sizes: set[int] = set()
    forward = backend._forward

    def noted(ids: Sequence[Sequence[int]], *others: Any, **named: Any) -> torch.Tensor:
        sizes.add(len(ids[0]))
        return forward(ids, *others, **named)

    monkeypatch.setattr(backend, "_forward", noted)
    for kept in range(100, 319, 13):
        for ids in (prompt(kept), prompt(kept) + prompt(319 - kept, 1)):
            slot = backend.start(TokenRequest(ids, GREEDY))
            assert first_token(backend) == slot
            backend.stop(slot)
    assert sizes and all(filled_up(size) == size for size in sizes), sorted(sizes)


def test_filled_down_is_the_largest_size_that_is_full() -> None:
    for rows in range(1, 600):
        sizes = [size for size in range(1, rows + 1) if filled_up(size) == size]
        assert filled_down(rows) == sizes[-1]
