"""Checkpoints that transformers and bitsandbytes saved quantised: planned as stored, and the same logits as theirs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from app.contract.plan import Precision
from app.engine.errors import BadCheckpoint
from app.engine.loading import weights
from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from entrypoint.plan.footprint import Load, weights_bytes
from tests.engine_models import engine_config, load_quietly, on_cpu
from tests.families import make_family
from tests.processes.engine import TINY
from tests.processes.service import running
from tests.torch_checkpoints import as_torch_files
from tools.checkpoints.make_checkpoint import make_checkpoint

BF16 = {"bnb_4bit_compute_dtype": torch.bfloat16}
HOW: dict[str, tuple[Precision, dict[str, Any]]] = {
    "nf4": ("int4", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", **BF16}),
    "nf4, double": (
        "int4",
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, **BF16},
    ),
    "int8": ("int8", {"load_in_8bit": True}),
    "fp4": ("int4", {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", **BF16}),
}
RUN = ["nf4", "nf4, double", "int8"]

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning")  # transformers' own loader, not ours


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "app.engine.loading.prequantised.LOAD_PIECE_ELEMENTS", 32 * 128
        )  # several pieces, also of small weights
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of `save_pretrained`, in shards that separate weights from their scales."""
    folder = tmp_path_factory.mktemp("saved")
    make_checkpoint(folder / "original", TINY)
    for name, (_, how) in HOW.items():
        config = BitsAndBytesConfig(**how)  # type: ignore[no-untyped-call]
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder / "original"), dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
        )
        model.save_pretrained(folder / name, max_shard_size="40KB")
    return {name: folder / name for name in HOW}


def load_ours(folder: Path, precision: Precision) -> Any:
    return load_quietly(folder, engine_config(precision, "bfloat16", max_model_len=128))


@pytest.mark.parametrize("name", RUN)
def test_the_same_logits_as_transformers_own_load(saved: dict[str, Path], name: str, plain_bf16: None) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(str(saved[name]), dtype=torch.bfloat16, device_map={"": "cpu"})
    ours = load_ours(saved[name], HOW[name][0])
    loaded_bytes = weights.weights_bytes(ours)
    ids = torch.arange(60).unsqueeze(0)
    with torch.inference_mode():
        logits, expected = ours(ids).logits.float(), theirs(ids).logits.float()
    if name == "int8":  # by another product: the activations are not rounded to a byte
        assert float((logits - expected).norm() / expected.norm()) < 0.03
    else:
        assert torch.equal(logits, expected)
    assert weights.weights_bytes(ours) <= loaded_bytes, "the first forward pass must not repack weights"


def test_experts_that_bitsandbytes_passed_over_are_read_as_floats(tmp_path: Path, plain_bf16: None) -> None:
    original, folder = make_family(tmp_path / "original", "glm4_moe"), tmp_path / "saved"
    config = BitsAndBytesConfig(**HOW["nf4, double"][1])  # type: ignore[no-untyped-call]
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        str(original), dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
    )
    theirs.save_pretrained(folder)
    checkpoint, ours, ids = read_checkpoint(folder), load_ours(folder, "int4"), torch.arange(20).unsqueeze(0)
    assert checkpoint.stored is not None
    with torch.inference_mode():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("packed", [True, False])
def test_the_plan_counts_what_is_loaded(
    saved: dict[str, Path], name: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes.functional as functional

    monkeypatch.setattr(functional, "has_avx512bf16", lambda: packed)
    checkpoint = read_checkpoint(saved[name])
    assert checkpoint.stored is not None
    assert checkpoint.stored.precision == HOW[name][0]
    double = checkpoint.stored.double_quant
    planned = Load(checkpoint.stored.precision, "bfloat16", 128, 1, packed=packed, double_quant=double)
    planned = on_cpu(planned) if name == "int8" else planned
    loaded = load_ours(saved[name], checkpoint.stored.precision)
    assert weights_bytes(checkpoint.layout, checkpoint.shape, planned) == weights.weights_bytes(loaded)


def test_saved_by_torch_it_loads_too(saved: dict[str, Path], tmp_path: Path) -> None:
    copy = as_torch_files(saved["nf4, double"], tmp_path / "copy")
    assert read_checkpoint(copy).stored == read_checkpoint(saved["nf4, double"]).stored
    ids = torch.arange(9).unsqueeze(0)
    with torch.inference_mode():
        logits = [load_ours(folder, "int4")(ids).logits for folder in (copy, saved["nf4, double"])]
    assert torch.equal(*logits)


def test_another_precision_or_format_is_refused(saved: dict[str, Path]) -> None:
    with pytest.raises(BadCheckpoint, match="stored as bitsandbytes nf4 and can't be loaded as int8"):
        load_ours(saved["nf4"], "int8")
    with pytest.raises(BadCheckpoint, match="stored as bitsandbytes fp4 in uint8, which can't be loaded for glm4"):
        load_ours(saved["fp4"], "int4")
    with pytest.raises(CheckpointError, match=r"stored as bitsandbytes fp4 in uint8 \(0.5 MiB\), which this engine"):
        read_checkpoint(saved["fp4"])


def edit_tensors(folder: Path, change: Any) -> None:
    """Joins the shards, so that any tensor can be changed."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


PROJ = "model.layers.1.mlp.down_proj"
STATE = f"{PROJ}.weight.quant_state.bitsandbytes__nf4"


def state_of(**changes: Any) -> Any:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        fields = json.loads(bytes(tensors[STATE].tolist())) | changes
        tensors[STATE] = torch.tensor(list(json.dumps(fields).encode()), dtype=torch.uint8)

    return change


@pytest.mark.parametrize(
    ("name", "change", "says", "planned"),
    [
        ("nf4", state_of(shape=[256, 128]), "quantisation state is that of another weight", True),
        ("nf4", state_of(blocksize=128), "quantisation state is that of another weight", True),
        ("nf4", state_of(dtype="no dtype"), "quantisation state can't be read", True),
        ("nf4", lambda t: t.update({STATE: torch.zeros(3, dtype=torch.uint8)}), "state can't be read", True),
        ("nf4", lambda t: t.pop(STATE), f"{STATE}", False),
        ("nf4, double", lambda t: t.pop(f"{PROJ}.weight.nested_absmax"), "nested_absmax", False),
        ("nf4", lambda t: t.update({f"{PROJ}.weight": torch.ones(128, 256)}), f"{PROJ}.weight is", False),
        ("int8", lambda t: t.update({f"{PROJ}.SCB": torch.ones(7)}), f"{PROJ}.SCB is", False),
        ("int8", lambda t: t.update({f"{PROJ}.weight_format": torch.ones(1, dtype=torch.uint8)}), "row by row", True),
        ("int8", lambda t: t.update(stranger=torch.ones(1)), "stranger", False),
    ],
)
def test_what_does_not_belong_together_is_refused(
    saved: dict[str, Path], tmp_path: Path, name: str, change: Any, says: str, planned: bool
) -> None:
    copy = Path(shutil.copytree(saved[name], tmp_path / "copy"))
    edit_tensors(copy, change)
    if planned:
        read_checkpoint(copy)
    else:
        with pytest.raises(CheckpointError, match=says):
            read_checkpoint(copy)
    with pytest.raises(BadCheckpoint, match=says):
        load_ours(copy, HOW[name][0])


def test_through_the_service_as_stored(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["nf4, double"], tmp_path / "model"))
    for path in (saved["nf4, double"].parent / "original").glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    with running(tmp_path, GLM_MODEL=str(folder), GLM_MAX_MODEL_LEN="128") as service:
        status = service.wait_for("ready")
        assert status["plan"]["chosen"]["precision"] == "int4"
        assert "as stored (bitsandbytes nf4)" in service.log()
        code, answer = service.chat("hello", max_tokens=4)
        assert code == 200
        assert answer["usage"]["completion_tokens"] == 4
