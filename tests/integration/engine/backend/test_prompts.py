"""How prompts are computed: none holds another up, and products have few sizes up to the context's very end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.config import EngineConfig
from app.engine.backend.interface import TokenRequest
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.kernels.row_padding import filled_down, filled_up
from app.engine.loading import load, weights
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model import attention
from app.engine.model.dense_layer import join_projections
from app.engine.model.forward import Piece, Step
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import Chunk, Window
from tests.families import make_family
from tests.tokens import GREEDY, tokens

LENGTH, CHUNK = 320, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / "checkpoint"
    make_family(folder, "glm4")
    return folder


@pytest.fixture
def backend(folder: Path) -> TransformersBackend:
    return make_backend(folder, CHUNK)


def make_backend(folder: Path, chunk: int) -> TransformersBackend:
    config = EngineConfig("fp32", "float32", ("cpu",), {"": "cpu"}, LENGTH, 1, chunk, 0, cpu_threads=2)
    checkpoint = open_checkpoint(folder)
    model = load.load_model(checkpoint, config, lambda _count: None)
    cache = SlotCache(checkpoint.shape, 3, LENGTH, torch.float32, torch.device("cpu"))
    return TransformersBackend(model, cache, chunk, checkpoint.shape.vocab)


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


class Passes:
    """Notes how many tokens each pass of the model takes."""

    def __init__(self, backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.parts: list[tuple[int, int]] = []
        """Answers and pieces of prompts in each."""
        embedding, run = backend._passes._model.embed_tokens, backend._passes
        embedding.register_forward_hook(lambda _module, _args, output: self.sizes.append(len(output)))

        def noted(step: Step | None, pieces: Sequence[Piece]) -> torch.Tensor:
            self.parts.append((len(step.slots) if step else 0, len(pieces)))
            return run(step, pieces)

        noted.together = True  # type: ignore[attr-defined]
        monkeypatch.setattr(backend, "_passes", noted)


def test_products_have_few_sizes_up_to_the_end_of_the_context(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size costs compiled code that stays; prompts that end at the context's end could have any."""
    passes = Passes(backend, monkeypatch)
    for kept in range(100, 319, 13):
        for ids in (prompt(kept), prompt(kept) + prompt(319 - kept, 1)):
            slot = backend.start(TokenRequest(ids, GREEDY))
            assert first_token(backend) == slot
            backend.stop(slot)
    assert passes.sizes and all(filled_up(size) == size for size in passes.sizes), sorted(passes.sizes)


def test_the_proof_meets_every_size_that_requests_have(folder: Path) -> None:
    """What is compiled for each is there before the first request, where bf16 is computed so."""
    config = EngineConfig("bf16", "bfloat16", ("cpu",), {"": "cpu"}, LENGTH, 3, CHUNK, 0, cpu_threads=2)
    checkpoint = open_checkpoint(folder)
    model = load.load_model(checkpoint, config, lambda _count: None)
    cache = SlotCache(checkpoint.shape, 3, LENGTH, torch.bfloat16, torch.device("cpu"))
    backend, sizes = TransformersBackend(model, cache, CHUNK, checkpoint.shape.vocab), set[int]()
    for layer in (model.model.layers[0], model.model.layers[-1]):
        layer.mlp.down_proj.register_forward_hook(lambda _module, _args, output: sizes.add(len(output)))
    backend.prove()
    met = frozenset(sizes)
    assert met >= {1, 2, 4, 16, 32, 48, 64}
    for count in range(1, 280, 9):
        slots = [backend.start(TokenRequest(prompt(count, count + seed), GREEDY)) for seed in range(3)]
        waiting = set(slots)
        while waiting:
            waiting -= {one.slot for one in backend.step()}
        for slot in slots:
            backend.stop(slot)
    assert sizes == met


def test_prompts_attend_to_few_numbers_of_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each, and each number of queries from 64 on, the bf16 kernel keeps compiled code."""
    backend, seen = make_backend(folder, CHUNK), set[int]()
    attended = attention.scaled_dot_product_attention

    def noted(query: torch.Tensor, key: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if query.shape[2] > 8:
            seen.add(key.shape[2])
        return attended(query, key, *args, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", noted)
    for count in range(9, 319, 7):
        slot = backend.start(TokenRequest(prompt(count, count), GREEDY))
        assert first_token(backend) == slot
        backend.stop(slot)
    assert seen <= {*range(16, 129, 16), *range(192, LENGTH + 1, 64)}, sorted(seen)


def test_what_is_kept_of_the_last_layer_has_few_sizes_too(backend: TransformersBackend) -> None:
    """Of answers and prompts that end any number may be kept."""
    sizes: set[int] = set()
    for product in (backend._passes._model.layers[-1].mlp.down_proj, backend._head):
        product.register_forward_hook(lambda _module, _args, output: sizes.add(len(output)))
    running = [backend.start(TokenRequest(prompt(9, seed), GREEDY)) for seed in range(3)]
    while {one.slot for one in backend.step()} != set(running):
        pass
    assert sizes == {1, 2, 4} or sizes == {4}


def test_answers_go_on_in_every_pass_that_computes_prompts(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(backend, monkeypatch)
    running = backend.start(TokenRequest(prompt(5), GREEDY))
    assert first_token(backend) == running
    late = [backend.start(TokenRequest(prompt(90, seed), GREEDY)) for seed in (1, 2)]
    waiting = set(late)
    while waiting:
        new = {one.slot for one in backend.step()}
        assert running in new
        waiting -= new
    assert {answers for answers, _ in passes.parts[1:]} <= {1, 2}
    assert any(pieces == 2 for _, pieces in passes.parts), "the end of one prompt and the beginning of the next"
    assert all(size <= CHUNK for size in passes.sizes), "answers and prompts together are bounded"


@pytest.mark.parametrize("chunk", [1, 2, 8, 15, 17, 31, 64])
def test_a_pass_takes_at_least_half_of_what_it_may(folder: Path, chunk: int) -> None:
    """Also where that is less than the least size of a product that is worth filling."""
    backend = make_backend(folder, chunk)
    slots, done = [backend.start(TokenRequest(prompt(60, seed), GREEDY)) for seed in range(3)], set[int]()
    for _ in range(180 // -(-chunk // 2)):
        done |= {one.slot for one in backend.step()}
    assert done == set(slots)


def test_an_error_of_one_part_of_a_pass_is_not_the_others(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = backend.start(TokenRequest(prompt(5), GREEDY))
    assert first_token(backend) == running
    fine, broken = (backend.start(TokenRequest(prompt(9, seed), GREEDY)) for seed in (1, 2))
    layer = backend._cache.slot_layers[1]
    write = layer.write

    def refuse(window: Window, keys: torch.Tensor, values: torch.Tensor) -> None:
        if isinstance(window, Chunk) and window.slot == broken:
            raise ZeroDivisionError
        write(window, keys, values)

    monkeypatch.setattr(layer, "write", refuse)
    new = {one.slot: one.token for one in backend.step()}
    assert isinstance(new.pop(broken), ZeroDivisionError)
    assert new.keys() == {running, fine} and all(isinstance(token, int) for token in new.values())


def test_joined_projections_are_the_three_apart(folder: Path) -> None:
    def answer(join: bool) -> list[int]:
        checkpoint = open_checkpoint(folder)
        config = EngineConfig("fp32", "float32", ("cpu",), {"": "cpu"}, LENGTH, 1, CHUNK, 0, cpu_threads=2)
        model = load.load_model(checkpoint, config, lambda _count: None)
        if join:
            before = weights.weights_bytes(model)
            join_projections(model)
            assert weights.weights_bytes(model) == before
            assert not hasattr(model.model.layers[0].self_attn, "q_proj")
        cache = SlotCache(checkpoint.shape, 1, LENGTH, torch.float32, torch.device("cpu"))
        return tokens(TransformersBackend(model, cache, CHUNK, checkpoint.shape.vocab), prompt(50), count=20)

    assert answer(join=True) == answer(join=False)


def test_filled_down_is_the_largest_size_that_is_full() -> None:
    for rows in range(1, 600):
        sizes = [size for size in range(1, rows + 1) if filled_up(size) == size]
        assert filled_down(rows) == sizes[-1]
