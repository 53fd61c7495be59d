"""How prompts are computed: none holds another up, and products have few sizes up to the context's very end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.plan import Dtype
from app.engine.backend.interface import TokenRequest
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.kernels.cpu_kind import form_changes
from app.engine.kernels.packed_linear import can_pack
from app.engine.kernels.row_padding import padded_rows, unpadded_rows
from app.engine.loading import weights
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.model import attention
from app.engine.model.dense_layer import join_projections
from app.engine.model.forward import DecodeStep, PromptChunk
from app.engine.model.windows import ChunkWindow, Window
from tests.engine_models import backend_of, engine_config, load_quietly
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
    checkpoint = open_checkpoint(folder)
    model = load_quietly(checkpoint, engine_config(max_model_len=LENGTH, prefill_chunk=chunk))
    return backend_of(model, checkpoint, max_model_len=LENGTH, slots=3, prefill_chunk=chunk)


def first_token(backend: TransformersBackend) -> int:
    """Steps until somebody has a token; whose slot it is."""
    while not (new := backend.step()):
        pass
    assert isinstance(new[0].token, int)
    return new[0].slot


def prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple((7 * place + 31 * seed) % 900 for place in range(1, count + 1))


def test_a_short_prompt_does_not_wait_for_a_long_one(backend: TransformersBackend) -> None:
    long = backend.add_request(TokenRequest(prompt(319), GREEDY))
    short = backend.add_request(TokenRequest(prompt(3, 1), GREEDY))
    assert first_token(backend) == short
    backend.finish_request(short)
    assert first_token(backend) == long, "and the long one comes to its end"


def test_short_prompts_that_keep_coming_do_not_starve_a_long_one(backend: TransformersBackend) -> None:
    long = backend.add_request(TokenRequest(prompt(319), GREEDY))
    for seed in range(1, 9):
        backend.add_request(TokenRequest(prompt(3, seed), GREEDY))
        if (slot := first_token(backend)) == long:
            return
        backend.finish_request(slot)
    pytest.fail("eight short prompts went before the long one")


class PassRecorder:
    """Notes how many tokens each pass of the model takes."""

    def __init__(self, backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.parts: list[tuple[int, int]] = []
        """Answers and pieces of prompts in each."""
        embedding, run = backend._forward._model.embed_tokens, backend._forward
        embedding.register_forward_hook(lambda _module, _args, output: self.sizes.append(len(output)))

        def recorded(step: DecodeStep | None, chunks: Sequence[PromptChunk]) -> torch.Tensor:
            self.parts.append((len(step.slots) if step else 0, len(chunks)))
            return run(step, chunks)

        recorded.takes_mixed_batches = True  # type: ignore[attr-defined]
        monkeypatch.setattr(backend, "_forward", recorded)


def test_products_have_few_sizes_up_to_the_end_of_the_context(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size costs compiled code that stays; prompts that end at the context's end could have any."""
    recorder = PassRecorder(backend, monkeypatch)
    for kept in range(100, 319, 13):
        for ids in (prompt(kept), prompt(kept) + prompt(319 - kept, 1)):
            slot = backend.add_request(TokenRequest(ids, GREEDY))
            assert first_token(backend) == slot
            backend.finish_request(slot)
    assert recorder.sizes and all(padded_rows(size) == size for size in recorder.sizes), sorted(recorder.sizes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_proof_has_as_many_steps_as_it_says(folder: Path, dtype: Dtype) -> None:
    checkpoint = open_checkpoint(folder)
    config = engine_config("fp32" if dtype == "float32" else "bf16", dtype, max_model_len=LENGTH, max_num_seqs=2)
    model = load_quietly(checkpoint, config)
    dtypes = {"dtype": getattr(torch, dtype)}
    backend = backend_of(model, checkpoint, max_model_len=LENGTH, slots=2, prefill_chunk=CHUNK, **dtypes)
    costs, done = backend.profile_costs(), list[None]()
    backend.profile_run(lambda: done.append(None))
    assert len(done) == len(costs)
    layers = len(model.model.layers)
    chunk = costs[-1 - layers : -1]
    assert len(set(chunk)) == 1 and chunk[0] >= costs[0] and min(costs) > 0
    # Other sizes are warmed up where oneDNN keeps code of them.
    assert (len(costs) > layers + 1) == (dtype == "bfloat16" and form_changes().onednn_bf16)


def test_each_layer_of_transformers_own_pass_is_a_step_too(tmp_path: Path) -> None:
    make_family(tmp_path / "checkpoint", "glm4_moe")
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    model = load_quietly(checkpoint, engine_config(max_model_len=LENGTH, prefill_chunk=CHUNK))
    backend = backend_of(model, checkpoint, max_model_len=LENGTH, prefill_chunk=CHUNK)
    costs, done = backend.profile_costs(), list[None]()
    backend.profile_run(lambda: done.append(None))
    assert len(done) == len(costs) == len(model.model.layers) + 1
    slot = backend.add_request(TokenRequest(prompt(3), GREEDY))
    assert first_token(backend) == slot
    assert len(done) == len(costs), "only the proof's own passes are reported"


@pytest.mark.skipif(not can_pack(), reason="oneDNN does not compute bf16 here and keeps nothing")
def test_the_proof_warms_up_every_size_that_requests_have(folder: Path) -> None:
    """So compiled code of each size exists before the first request, if bf16 needs such code."""
    checkpoint = open_checkpoint(folder)
    model = load_quietly(checkpoint, engine_config("bf16", "bfloat16", max_model_len=LENGTH, max_num_seqs=3))
    backend = backend_of(model, checkpoint, max_model_len=LENGTH, slots=3, prefill_chunk=CHUNK, dtype=torch.bfloat16)
    sizes: set[int] = set()
    for layer in (model.model.layers[0], model.model.layers[-1]):
        layer.mlp.down_proj.register_forward_hook(lambda _module, _args, output: sizes.add(len(output)))
    backend.profile_run()
    warmed_up = frozenset(sizes)
    assert warmed_up >= {1, 2, 4, 16, 32, 48, 64}
    for count in range(1, 280, 9):
        slots = [backend.add_request(TokenRequest(prompt(count, count + seed), GREEDY)) for seed in range(3)]
        waiting = set(slots)
        while waiting:
            waiting -= {one.slot for one in backend.step()}
        for slot in slots:
            backend.finish_request(slot)
    assert sizes == warmed_up


def test_prompts_attend_to_few_numbers_of_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each, and each number of queries from 64 on, the bf16 kernel keeps compiled code."""
    backend, key_counts = make_backend(folder, CHUNK), set[int]()
    attended = attention.scaled_dot_product_attention

    def recorded(query: torch.Tensor, key: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if query.shape[2] > 8:
            key_counts.add(key.shape[2])
        return attended(query, key, *args, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", recorded)
    for count in range(9, 319, 7):
        slot = backend.add_request(TokenRequest(prompt(count, count), GREEDY))
        assert first_token(backend) == slot
        backend.finish_request(slot)
    assert key_counts <= {*range(16, 129, 16), *range(192, LENGTH + 1, 64)}, sorted(key_counts)


def test_what_is_kept_of_the_last_layer_has_few_sizes_too(backend: TransformersBackend) -> None:
    """Of answers and prompts that end any number may be kept."""
    sizes: set[int] = set()
    for product in (backend._forward._model.layers[-1].mlp.down_proj, backend._head):
        product.register_forward_hook(lambda _module, _args, output: sizes.add(len(output)))
    running = [backend.add_request(TokenRequest(prompt(9, seed), GREEDY)) for seed in range(3)]
    while {one.slot for one in backend.step()} != set(running):
        pass
    assert sizes == {1, 2, 4} or sizes == {4}


def test_answers_go_on_in_every_pass_that_computes_prompts(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = PassRecorder(backend, monkeypatch)
    running = backend.add_request(TokenRequest(prompt(5), GREEDY))
    assert first_token(backend) == running
    late = [backend.add_request(TokenRequest(prompt(90, seed), GREEDY)) for seed in (1, 2)]
    waiting = set(late)
    while waiting:
        new = {one.slot for one in backend.step()}
        assert running in new
        waiting -= new
    assert {answers for answers, _ in recorder.parts[1:]} <= {1, 2}
    assert any(chunks == 2 for _, chunks in recorder.parts), "the end of one prompt and the beginning of the next"
    assert all(size <= CHUNK for size in recorder.sizes), "answers and prompts takes_mixed_batches are bounded"


@pytest.mark.parametrize("chunk", [1, 2, 8, 15, 17, 31, 64])
def test_a_pass_takes_at_least_half_of_what_it_may(folder: Path, chunk: int) -> None:
    """Also if that is less than the least size of a padded product."""
    backend = make_backend(folder, chunk)
    slots, done = [backend.add_request(TokenRequest(prompt(60, seed), GREEDY)) for seed in range(3)], set[int]()
    for _ in range(180 // -(-chunk // 2)):
        done |= {one.slot for one in backend.step()}
    assert done == set(slots)


def test_an_error_of_one_part_of_a_pass_is_not_the_others(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = backend.add_request(TokenRequest(prompt(5), GREEDY))
    assert first_token(backend) == running
    fine, broken = (backend.add_request(TokenRequest(prompt(9, seed), GREEDY)) for seed in (1, 2))
    layer = backend._cache.slot_layers[1]
    write = layer.write

    def refuse(window: Window, keys: torch.Tensor, values: torch.Tensor) -> None:
        if isinstance(window, ChunkWindow) and window.slot == broken:
            raise ZeroDivisionError
        write(window, keys, values)

    monkeypatch.setattr(layer, "write", refuse)
    new = {one.slot: one.token for one in backend.step()}
    assert isinstance(new.pop(broken), ZeroDivisionError)
    assert new.keys() == {running, fine} and all(isinstance(token, int) for token in new.values())


def test_joined_projections_are_the_three_apart(folder: Path) -> None:
    def answer(join: bool) -> list[int]:
        checkpoint = open_checkpoint(folder)
        model = load_quietly(checkpoint, engine_config(max_model_len=LENGTH))
        if join:
            before = weights.weights_bytes(model)
            join_projections(model)
            assert weights.weights_bytes(model) == before
            assert not hasattr(model.model.layers[0].self_attn, "q_proj")
        return tokens(backend_of(model, checkpoint, max_model_len=LENGTH, prefill_chunk=CHUNK), prompt(50), count=20)

    assert answer(join=True) == answer(join=False)


def test_filled_down_is_the_largest_size_that_is_full() -> None:
    for rows in range(1, 600):
        sizes = [size for size in range(1, rows + 1) if padded_rows(size) == size]
        assert unpadded_rows(rows) == sizes[-1]
