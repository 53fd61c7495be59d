"""A model spread over devices: each weight on its device of the map, and the same answers as on one device.

No GPU is needed: `PretendDevices` computes on the CPU and refuses to mix tensors that claim to lie elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contract.config import EngineConfig
from app.contract.plan import Dtype, Precision, Rung
from app.contract.status import Ready
from app.contract.wire import Delta
from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.errors import EngineError
from app.engine.loading import load, weights
from app.engine.loading.checkpoint import CheckpointFiles, open_checkpoint
from app.engine.loading.placement import device_map_of
from app.engine.model import attention, dense_forward
from app.engine.model.forward import PromptChunk
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import chunk_window
from app.layouts.layout import Layout
from app.layouts.shape import Shape
from entrypoint.plan.footprint import LayerSpan, Load, kv_cache_bytes, weights_bytes
from entrypoint.plan.ladder import Candidate
from entrypoint.plan.placement import Budget
from entrypoint.reasons.plan import LayersIndivisible
from entrypoint.state.app_config import device_map
from tests.engine_models import backend_of, engine_config, load_quietly, on_cpu
from tests.families import FAMILIES, LAYERS, make_family
from tests.integration.engine.loading.test_families import tensors_within
from tests.pretend_devices import CPU, Mixed, PretendDevices
from tests.processes.engine import EngineProcess
from tests.tokens import tokens
from tests.unit.planning import HOST, gpu, plan_inputs

LENGTH = 80
CHUNK = 32
FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
PROMPT = tuple(range(5, 65))


@pytest.fixture(scope="module", autouse=True)
def newest_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))  # transformers asks for experts
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckpointFiles]:
    made = {name: make_family(tmp_path_factory.mktemp("family") / "checkpoint", name) for name in FAMILIES}
    return {name: open_checkpoint(folder) for name, folder in made.items()}


def spread(*layers: str, first: str, last: str) -> dict[str, str]:
    """A device map."""
    return {
        "model.embed_tokens": first,
        **{f"model.layers.{index}": device for index, device in enumerate(layers)},
        "model.norm": last,
        "lm_head": last,
    }


def config_for(devices: dict[str, str], precision: Precision = "fp32", dtype: Dtype = "float32") -> EngineConfig:
    return engine_config(
        precision, dtype, devices=("unused",), device_map=devices, max_model_len=LENGTH, prefill_chunk=CHUNK
    )


def backend_for(checkpoint: CheckpointFiles, config: EngineConfig) -> TransformersBackend:
    devices = device_map_of(config, checkpoint.shape.layers)
    model = load_quietly(checkpoint, config)
    dtype = getattr(torch, config.compute_dtype)
    return backend_of(model, checkpoint, max_model_len=LENGTH, prefill_chunk=CHUNK, dtype=dtype, devices=devices.layers)


def generate(backend: TransformersBackend) -> list[int]:
    return tokens(backend, PROMPT)


@pytest.mark.parametrize("name", FAMILIES)
def test_two_gpus_and_the_cpu_answer_as_one_device_does(checkpoints: dict[str, CheckpointFiles], name: str) -> None:
    alone = generate(backend_for(checkpoints[name], config_for({"": "cpu"})))
    with PretendDevices() as pretend:
        # The sampler's generator can't pretend: the head is on the CPU.
        backend = backend_for(
            checkpoints[name], config_for(spread("cuda:0", "cuda:0", "cuda:1", first="cuda:0", last="cpu"))
        )
        pretend.moves.clear()
        assert generate(backend) == alone
        # The next one finds all of the prompt but its last token.
        assert generate(backend) == alone
        backend.profile_run()
    hidden = checkpoints[name].shape.hidden
    states = Counter(move[:2] for move in pretend.moves if move[2][-1] == hidden)
    passes = -(-len(PROMPT) // CHUNK) + 1 + 2 * (LENGTH - len(PROMPT) - 1) + 2
    assert states == {(FIRST, SECOND): passes, (SECOND, CPU): passes}, "hidden states move at borders only"


def test_what_layers_share_is_moved_once_a_pass(checkpoints: dict[str, CheckpointFiles]) -> None:
    with PretendDevices() as pretend:
        backend = backend_for(
            checkpoints["glm4"], config_for(spread("cuda:1", "cuda:1", "cuda:1", first="cuda:0", last="cuda:1"))
        )
        pretend.moves.clear()
        backend._forward(None, [PromptChunk(0, 0, PROMPT[:CHUNK])])
        backend._forward(None, [PromptChunk(0, CHUNK, PROMPT[CHUNK:])])
        kinds = Counter(len(shape) for _, _, shape in pretend.moves)
    # Hidden states, cos and sin have three dimensions, positions two; masks are made where they are needed.
    assert kinds == {3: 2 * 3, 2: 2}


def test_back_to_the_first_device(checkpoints: dict[str, CheckpointFiles]) -> None:
    alone = generate(backend_for(checkpoints["glm4"], config_for({"": "cpu"})))
    with PretendDevices():
        backend = backend_for(checkpoints["glm4"], config_for(spread("cpu", "cuda:0", "cpu", first="cpu", last="cpu")))
        assert generate(backend) == alone


@pytest.mark.parametrize("name", ["glm4", "chatglm3"])
def test_all_on_one_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the dense layers' own pass and recorded steps; what is recorded is merely run again here."""
    checkpoint = open_checkpoint(make_family(tmp_path / "checkpoint", name))
    alone = generate(backend_for(checkpoint, config_for({"": "cpu"})))
    repeated: list[int] = []

    def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def again() -> torch.Tensor:
            repeated.append(1)
            return run()

        return again

    monkeypatch.setattr(dense_forward, "CudaCapture", lambda: capture)
    with PretendDevices() as pretend:
        backend = backend_for(checkpoint, config_for({"": "cuda:0"}))
        pretend.moves.clear()
        assert generate(backend) == alone
        assert len(repeated) == len(alone) - 1, "all but the prompt's"
        backend.profile_run()
    assert not pretend.moves


def test_without_moves_it_would_be_refused(
    checkpoints: dict[str, CheckpointFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "move_between_devices", lambda *_: None)
    with PretendDevices():
        backend = backend_for(checkpoints["glm4"], config_for(spread("cpu", "cpu", "cuda:0", first="cpu", last="cpu")))
        with pytest.raises(Mixed, match="cuda:0"):
            generate(backend)


@pytest.mark.parametrize("name", ["glm4", "glm4_moe"])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", "bfloat16"), ("int8", "float32"), ("int4", "bfloat16"), ("int4", "float32")]
)
def test_one_device_by_two_names_gives_the_same_logits(
    checkpoints: dict[str, CheckpointFiles], name: str, precision: Precision, dtype: Dtype
) -> None:
    """The hooks at work with bitsandbytes' modules, which can't pretend."""
    halves = spread("cpu", "cpu:0", "cpu:0", first="cpu", last="cpu:0")
    models = [
        load_quietly(checkpoints[name], config_for(devices, precision, dtype)) for devices in ({"": "cpu"}, halves)
    ]
    hooks = [sum(len(module._forward_pre_hooks) for module in model.modules()) for model in models]
    assert hooks == [0, 2]
    with torch.inference_mode():
        one, two = (model(torch.tensor([PROMPT])).logits for model in models)
    assert torch.equal(one, two)


def rung_over(layout: Layout, shape: Shape, precision: Precision = "bf16") -> Rung:
    """The CPU and two GPUs with nothing free, so that each has one of the three layers."""
    inputs = plan_inputs(shape, layout=layout, devices=(gpu(0), gpu(0, index=1)), host=HOST)
    candidate = Candidate(precision, (None, *inputs.devices), ("GPU-0000", "GPU-0001", "cpu"), "bfloat16")
    return Budget(inputs, candidate, LENGTH, 1).rung("too_large", LayersIndivisible())


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_device_holds_what_the_plan_counts_for_it(
    checkpoints: dict[str, CheckpointFiles],
    name: str,
    precision: Precision,
) -> None:
    checkpoint = checkpoints[name]
    rung = rung_over(checkpoint.layout, checkpoint.shape, precision)
    config = config_for(device_map(rung), precision, "bfloat16")
    with PretendDevices() as pretend:
        devices = device_map_of(config, LAYERS)
        model = load_quietly(checkpoint, config)
        cache: Any = SlotCache(checkpoint.shape, 1, LENGTH, torch.bfloat16, devices.layers)
        parts = [
            (model.model.embed_tokens, model.model.layers[0]),
            (model.model.layers[1],),
            (model.model.layers[2], model.model.norm, model.lm_head),
        ]
        for index, (part, modules, layer) in enumerate(zip(rung.placements, parts, cache.layers, strict=True)):
            planned = Load(precision, "bfloat16", LENGTH, 1)
            planned = on_cpu(planned) if index == 0 else planned
            counted = weights_bytes(checkpoint.layout, checkpoint.shape, planned, LayerSpan(index, 1))
            assert sum(weights.weights_bytes(module) for module in modules) == counted, part.device
            assert (layer.keys.nbytes + layer.values.nbytes) * LAYERS == kv_cache_bytes(checkpoint.shape, planned)
            tensors = [tensor for module in modules for tensor in tensors_within(module, set())]
            assert {pretend.place(tensor) for tensor in (*tensors, layer.keys, layer.values)} == {devices.used[index]}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_has_its_place(checkpoints: dict[str, CheckpointFiles], name: str) -> None:
    checkpoint = checkpoints[name]
    rung = rung_over(checkpoint.layout, checkpoint.shape)
    devices = device_map_of(config_for(device_map(rung)), checkpoint.shape.layers)
    assert devices.used == (CPU, FIRST, SECOND)
    for tensor in checkpoint.tensors:
        parts = tensor.parameter.name.split(".")
        expected = {"embed_tokens": 0, "norm": 2, "weight": 2}.get(parts[1])
        index = int(parts[2]) if expected is None else expected
        assert devices.of(tensor.parameter.name) == devices.used[index], tensor.parameter.name


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.layers.1": None}, "model.layers.1 is missing"),
        ({"model.layers.3": "cpu"}, "model.layers.3 is not a module of this model"),
        ({"": "cpu"}, "device_map:  is not a module"),
        ({"lm_head": "cuda:0"}, "lm_head is on cuda:0, should be on cpu as model.norm"),
    ],
)
def test_a_map_that_does_not_fit_the_model_is_refused_by_name(changes: dict[str, str | None], says: str) -> None:
    changed: dict[str, Any] = spread("cpu", "cpu", "cpu", first="cpu", last="cpu") | changes
    with pytest.raises(EngineError, match=says):
        device_map_of(config_for({name: device for name, device in changed.items() if device}), 3)


def test_heads_are_repeated_where_a_kernel_would_store_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[int] = []
    kernel = attention.scaled_dot_product_attention

    def recording(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        heads.append(key.shape[1])
        return kernel(query, key, *args, **kwargs)

    def capability(device: torch.device) -> tuple[int, int]:
        return (8, 0) if device == FIRST else (7, 5)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", recording)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    outputs = []
    with PretendDevices():
        for device in (CPU, FIRST, SECOND):
            draw = torch.Generator().manual_seed(1)
            query, key, value = (torch.randn(1, count, 6, 8, generator=draw).to(device) for count in (4, 2, 2))
            for start, new in ((0, 6), (3, 3)):  # without a mask, then with one
                windows = {device: chunk_window(0, start, 6, device)}
                part = query[:, :, -new:]
                outputs.append(attention.attend(None, part, key, value, None, scaling=0.3, windows=windows)[0].to(CPU))
    assert heads == [2, 2, 2, 4, 4, 4]
    for index in (2, 4):
        torch.testing.assert_close(outputs[index], outputs[0])
        torch.testing.assert_close(outputs[index + 1], outputs[1])


def test_a_spread_engine_serves(checkpoints: dict[str, CheckpointFiles], tmp_path: Path) -> None:
    """Through the whole process: two names of the CPU, hooks at work."""
    halves = spread("cpu", "cpu:0", "cpu:0", first="cpu", last="cpu:0")
    answers = []
    for name, devices in (("one", None), ("two", halves)):
        (tmp_path / name).mkdir()
        with EngineProcess(
            tmp_path / name, checkpoints["glm4"].folder, "int4", dtype="bfloat16", device_map=devices
        ) as engine:
            ready = engine.until(Ready)
            assert ready.resident_by_device.keys() == {"cpu"}
            assert ready.proof.measured_by_device == {}, "one device needs no list"
            answers.append([reply.text for reply in engine.answer(max_tokens=12) if isinstance(reply, Delta)])
    assert answers[0] == answers[1]
    assert "".join(answers[0])
