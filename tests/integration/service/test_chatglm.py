"""ChatGLM3 through the whole service: measured, planned, loaded, asked over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI

from app.engine.backend.transformers_backend import TransformersBackend
from app.engine.formats.open import open_format
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.loading.load import load_model
from app.engine.model.kv_cache import SlotCache
from app.engine.sampling import Sampling
from app.engine.serving.answer import AnswerRequest, answer
from tests.engine_models import engine_config
from tests.paths import FIXTURES
from tests.processes.service import Service, free_port, run_entrypoint, running

FIXTURE = FIXTURES / "chatglm3-tiny"
LENGTH, TOKENS = 512, 24


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), GLM_MODEL=str(FIXTURE), GLM_PRECISION="fp32") as service:
        service.wait_for("ready")
        yield service


def benign_chats() -> list[dict[str, Any]]:
    chats = json.loads((FIXTURE / "expected_tokens.json").read_text(encoding="utf-8"))["chats"]
    for chat in chats:
        for message in chat["messages"]:
            message.pop("metadata", None)
    return list(chats)


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Text after prompt ids by the backend whose logits are held to the published code's (test_engine_chatglm)."""
    checkpoint = open_checkpoint(FIXTURE)
    config = engine_config(max_model_len=LENGTH, prefill_chunk=512)
    model = load_model(checkpoint, config, lambda _count: None)
    cache = SlotCache(checkpoint.shape, 1, LENGTH, torch.float32, torch.device("cpu"))
    backend = TransformersBackend(model, cache, 512, checkpoint.shape.vocab)
    chat = open_format(checkpoint)

    def ask(ids: list[int]) -> str:
        request = AnswerRequest("x", tuple(ids), Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0), TOKENS)
        return "".join(getattr(reply, "text", "") for reply in answer(request, backend, chat))

    return ask


def test_the_answer_is_the_models_after_the_published_prompt_ids(service: Service, greedy: Any) -> None:
    for chat in benign_chats():
        body = {"messages": chat["messages"], "temperature": 0, "max_tokens": TOKENS}
        code, reply = service.request("POST", "/v1/chat/completions", body)
        assert code == 200
        assert reply["usage"]["prompt_tokens"] == len(chat["ids"])
        assert reply["choices"][0]["message"]["content"] == greedy(chat["ids"])


def test_the_official_client_streaming(service: Service, greedy: Any) -> None:
    chat = benign_chats()[0]
    request: dict[str, Any] = {
        "model": FIXTURE.name,
        "messages": chat["messages"],
        "temperature": 0,
        "max_tokens": TOKENS,
    }
    with OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(**request, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == greedy(chat["ids"])


def test_the_plan_names_the_layout(service: Service) -> None:
    status = service.status()
    assert (status["precision"], status["plan"]["model"]["layout"]) == ("fp32", "chatglm")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_rungs_start_and_answer(tmp_path: Path, precision: str) -> None:
    with running(tmp_path, GLM_MODEL=str(FIXTURE), GLM_PRECISION=precision) as service:
        service.wait_for("ready")
        code, reply = service.chat("你好", max_tokens=8)
        assert (code, reply["usage"]["completion_tokens"] <= 8) == (200, True)
        assert service.status()["precision"] == precision


@pytest.mark.parametrize("command", ["plan", "serve"])
def test_what_would_go_wrong_is_one_line_and_exit_2(tmp_path: Path, command: str) -> None:
    copy = Path(shutil.copytree(FIXTURE, tmp_path / "copy", copy_function=shutil.copyfile))
    state = {"GLM_STATE_DIR": str(tmp_path / "state"), "GLM_PORT": str(free_port())}

    def refusal() -> str:
        done = run_entrypoint(command, GLM_MODEL=str(copy), **state)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("berth: ")]
        return line

    (copy / "tokenizer.model").write_bytes(b"<html>")
    assert "neither ChatGLM3's SentencePiece model nor GLM-4-9B-chat's list of ranks" in refusal()
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"quantization_bit": 4}), encoding="utf-8")
    assert "quantization_bit is 4: quantised weights" in refusal()
