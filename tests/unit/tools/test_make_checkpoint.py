"""tools/checkpoints/make_checkpoint.py: what it writes is what transformers loads, byte for byte repeatable."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from app.engine.loading.checkpoint import open_checkpoint
from app.layouts.registry import layout_of, shape_of
from app.layouts.skeleton import skeleton
from tools.checkpoints.chatglm import FIXTURES, config_of
from tools.checkpoints.glm_tokenizer import CONTROL_TOKENS
from tools.checkpoints.make_checkpoint import (
    main,
    make_checkpoint,
    make_config,
    native_skeleton,
    published_fields,
    split_shards,
)
from tools.checkpoints.shape import PUBLISHED_SHAPES, CheckpointShape, MakeCheckpointError

TINY = {"hidden": 64, "layers": 2, "heads": 4, "head_dim": 32, "intermediate": 128, "vocab": 512, "context": 256}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
@pytest.mark.parametrize("tied", [False, True])
def test_loads_natively_and_generates(tmp_path: Path, model_type: str, tied: bool) -> None:
    make_checkpoint(tmp_path / "out", CheckpointShape(model_type=model_type, tied=tied, **TINY))
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.model_type == model_type
    assert not info["missing_keys"] and not info["unexpected_keys"]
    chat = [{"role": "user", "content": "hello, 你好"}]
    ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", sanitize_control_tokens=True
    )
    assert torch.isfinite(model(**ids).logits).all()
    answer = model.generate(**ids, do_sample=False, max_new_tokens=5)
    assert answer.shape[1] > ids["input_ids"].shape[1]


def test_shards_and_index_agree(tmp_path: Path) -> None:
    out = tmp_path / "out"
    total = make_checkpoint(out, CheckpointShape(**TINY), shard_bytes=100_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == total
    found = {}
    for path in out.glob("model-*.safetensors"):
        with safe_open(path, "pt") as shard:
            found |= dict.fromkeys(shard.keys(), path.name)
            names = list(shard.keys())
            data = sum(shard.get_tensor(name).nbytes for name in names)
            assert data <= 100_000 or len(names) == 1
    assert found == index["weight_map"]
    assert len(set(found.values())) > 2
    AutoModelForCausalLM.from_pretrained(out)


def test_same_seed_same_bytes_whatever_the_shards(tmp_path: Path) -> None:
    shape = CheckpointShape(**TINY)
    for name, seed, shard_bytes in (("a", 1, 2**30), ("b", 1, 2**30), ("c", 2, 2**30), ("d", 1, 100_000)):
        make_checkpoint(tmp_path / name, shape, seed=seed, shard_bytes=shard_bytes)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["model.safetensors"] != digests(tmp_path / "c")["model.safetensors"]
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "a").state_dict()
    sharded = AutoModelForCausalLM.from_pretrained(tmp_path / "d").state_dict()
    assert all(torch.equal(whole[name], sharded[name]) for name in whole)


@pytest.mark.parametrize("vocab", [266, 1000, 30_000])
def test_every_id_decodes_and_any_text_round_trips(tmp_path: Path, vocab: int) -> None:
    make_checkpoint(tmp_path / "out", CheckpointShape(**{**TINY, "layers": 1, "vocab": vocab}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == vocab
    assert tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)) == list(range(vocab - len(CONTROL_TOKENS), vocab))
    for text in ("Hello,  world!\n", "显存不够怎么办？", "🙂 naïve\t<x>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert all(tokenizer.decode([number]) for number in range(vocab))


def test_shape_of_a_published_checkpoint() -> None:
    shape = CheckpointShape.published("zai-org/GLM-4-9B-0414", context=4096)
    assert (shape.layers, shape.hidden, shape.vocab, shape.context) == (40, 4096, 151552, 4096)
    name, tensors = native_skeleton(make_config(shape), torch.bfloat16)
    assert name == "Glm4ForCausalLM"
    assert sum(tensor.elements for tensor in tensors) == 9_400_279_040
    stored = {tensor.name for tensor in tensors}
    assert {"model.layers.0.self_attn.q_proj.bias", "lm_head.weight"} <= stored
    assert len(split_shards(tensors, 2**31)) > 5


def test_experts_are_stored_one_by_one() -> None:
    shape = CheckpointShape.published("zai-org/GLM-4.7-Flash", layers=2)
    names = {tensor.name for tensor in native_skeleton(make_config(shape), torch.bfloat16)[1]}
    assert "model.layers.1.mlp.experts.63.gate_proj.weight" in names


@pytest.mark.parametrize("name", json.loads(PUBLISHED_SHAPES.read_text(encoding="utf-8")).keys() - {"_note"})
def test_every_published_shape_can_be_written(tmp_path: Path, name: str) -> None:
    """Cut to three layers and sizes that are quick to write; what the shape is known for stays."""
    small = {"layers": 3, "hidden": 64, "intermediate": 64, "vocab": 1000}
    shape = CheckpointShape.published(name, **small)
    fewer = {"n_routed_experts": 8, "moe_intermediate_size": 32, "num_experts_per_tok": 2}
    extra = {key: fewer.get(key, value) for key, value in shape.extra.items()}
    make_checkpoint(tmp_path / "out", dataclasses.replace(shape, extra=extra), shard_bytes=2**20)
    checkpoint = open_checkpoint(tmp_path / "out")
    assert (checkpoint.layout.model_type, checkpoint.shape.heads) == (shape.model_type, shape.heads)
    assert checkpoint.shape.context == shape.context
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("zai-org/chatglm3-6b", 6_243_584_000),
        ("zai-org/glm-4-9b-chat", 9_399_951_360),
        ("zai-org/GLM-4.7-Flash", 29_943_390_976),
        ("zai-org/GLM-4.5-Air", 106_851_586_048),
    ],
)
def test_published_shapes_have_as_many_parameters_as_known(name: str, parameters: int) -> None:
    """Counted elsewhere on the native classes, without buffers; Air is the one that is called 106B."""
    shape = CheckpointShape.published(name)
    fields = config_of(shape) if shape.model_type == "chatglm" else published_fields(make_config(shape))
    counted = skeleton(layout_of(fields), shape_of(fields))
    assert sum(parameter.elements for parameter in counted if not parameter.full_precision) == parameters


@pytest.mark.parametrize("fixture", ["chatglm3-tiny", "glm4-9b-chat-tiny"])
def test_the_chatglm_layout_is_written_as_published(tmp_path: Path, fixture: str) -> None:
    out = tmp_path / "out"
    shape = CheckpointShape(**{**TINY, "vocab": 1000}, model_type="chatglm", tokenizer=fixture, dtype="float16")
    make_checkpoint(out, shape, shard_bytes=100_000)
    published = json.loads((FIXTURES / fixture / "config.json").read_text(encoding="utf-8"))
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert written.keys() == published.keys()
    assert written["auto_map"] == published["auto_map"]
    assert (written["num_layers"], written["padded_vocab_size"], written["torch_dtype"]) == (2, 1000, "float16")
    assert (out / "tokenizer.model").read_bytes() == (FIXTURES / fixture / "tokenizer.model").read_bytes()
    names = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"].keys()
    theirs = json.loads((FIXTURES / fixture / "model.safetensors.index.json").read_text())["weight_map"].keys()
    assert names == {name for name in theirs if ".layers.2." not in name}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--heads", "3"], "heads (3) must be a multiple"),
        (["--vocab", "100"], "vocab must be at least 266"),
        (["--model-type", "llama9"], "model type llama9 is not one of"),
        (["--like", "zai-org/GLM-4-9B"], "the nearest is zai-org/GLM-4-9B-0414"),
        (["--model-type", "chatglm", "--vocab", "600"], "vocab must be at least 832, that of the tokenizer"),
        (["--like", "x", "--shapes", "nowhere.json"], "cannot read shapes"),
        (["--shard-bytes", "many"], "is not a size"),
        (["--dtype", "int8"], "invalid choice"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    try:
        status = main([str(tmp_path / "out"), *arguments])
    except SystemExit as stop:  # argparse's own errors
        status = int(str(stop.code))
    error = capsys.readouterr().err
    assert status == 2
    assert said in error and error.count("\n") == 1


def test_keeps_off_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MakeCheckpointError, match="not empty"):
        make_checkpoint(tmp_path, CheckpointShape(**TINY))


def test_command_writes_what_config_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    assert main([str(tmp_path / "out"), "--model-type=glm", "--dtype=float16", "--no-attention-bias", *options]) == 0
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.model_type, config.hidden_size, config.attention_bias) == ("glm", 64, False)
    assert config.dtype == torch.float16
    assert "GiB of weights" in capsys.readouterr().out
