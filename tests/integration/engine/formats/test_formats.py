"""Prompts and answers through the engine's own process, on each layout that was published with reference answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from app.contract.codec import dump_line
from app.contract.config import EngineConfig
from app.contract.status import Ready
from app.contract.wire import (
    ChatRequest,
    Delta,
    Detokenized,
    DetokenizeRequest,
    Failed,
    Message,
    Reply,
    SamplingParams,
    Tokenized,
    TokenizeRequest,
    Tool,
    ToolChoice,
)
from app.engine.formats.base import ChatFormat
from app.engine.formats.open import load_format
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.loading.load import load_model
from app.engine.sampling import Sampling
from app.engine.serving.answer import AnswerRequest, AnswerWriter
from tests.paths import FIXTURES
from tests.processes.engine import EngineProcess, last_of

LENGTH, TOKENS = 1024, 24
WEATHER = Tool("get_weather", '{"name": "get_weather", "parameters": {"type": "object"}}')
NOW = Tool("now", '{"name": "now"}')
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


@dataclass
class Speaking:
    """A running engine, and what is expected of it."""

    engine: EngineProcess
    chat: ChatFormat
    model: Any
    expected: dict[str, Any]

    def ask(self, request: ChatRequest | TokenizeRequest | DetokenizeRequest) -> list[Reply]:
        return self.engine.send_line(dump_line(request))

    def greedy(self, prompt: list[int]) -> list[int]:
        """The likeliest tokens by the whole forward pass, without cache or engine, of the model that is held to the
        published code's logits (test_engine_chatglm)."""
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(TOKENS):
                ids.append(int(self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        return ids[len(prompt) :]


@pytest.fixture(scope="module", params=["chatglm3-tiny", "glm4-9b-chat-tiny"])
def speaking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speaking]:
    folder = FIXTURES / request.param
    checkpoint = open_checkpoint(folder)
    config = EngineConfig("fp32", "float32", ("cpu",), {"": "cpu"}, LENGTH, 1, 64, 0, cpu_threads=2)
    model = load_model(checkpoint, config, lambda _count: None)
    expected = json.loads((folder / "expected_tokens.json").read_text(encoding="utf-8"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the engine computes beside it
    with EngineProcess(tmp_path_factory.mktemp("engine"), folder, max_model_len=LENGTH) as engine:
        engine.until(Ready)
        yield Speaking(engine, load_format(folder, checkpoint.shape.vocab), model, expected)
    torch.set_num_threads(threads)


def messages(chat: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in chat["messages"])


def test_tokenize_gives_the_published_ids(speaking: Speaking) -> None:
    for chat in speaking.expected["chats"]:
        assert speaking.ask(TokenizeRequest("t", messages(chat))) == [Tokenized(tuple(chat["ids"]), LENGTH)]
    some = slice(0, 40)
    texts, plain, decoded = (speaking.expected[name][some] for name in ("texts", "plain_ids", "decoded"))
    for text, ids, read in zip(texts, plain, decoded, strict=True):
        assert speaking.ask(TokenizeRequest("t", prompt=text)) == [Tokenized(tuple(ids), LENGTH)]
        assert speaking.ask(DetokenizeRequest("d", tuple(ids))) == [Detokenized(read)]
    ids = speaking.expected["chats"][0]["ids"]
    assert speaking.ask(DetokenizeRequest("d", tuple(ids))) == [Detokenized(speaking.chat.decode(ids))]
    assert "<|user|>" in speaking.chat.decode(ids)


def test_tokenize_shows_what_a_chat_is_given(speaking: Speaking) -> None:
    tools = (WEATHER, NOW)
    conversation = (Message("user", "天气?"),)
    (shown,) = speaking.ask(TokenizeRequest("t", conversation, tools=tools))
    assert isinstance(shown, Tokenized)
    replies = speaking.ask(ChatRequest("c", conversation, SamplingParams(temperature=0.0), max_tokens=1, tools=tools))
    assert last_of(replies).prompt_tokens == len(shown.tokens)  # type: ignore[union-attr]
    assert "get_weather" in speaking.chat.decode(shown.tokens)


@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        (DetokenizeRequest("d", (1, 2, 9999)), "tokens", "tokens[2] is 9999"),
        (DetokenizeRequest("d", (-1,)), "tokens", "tokens[0] is -1"),
        (TokenizeRequest("t"), "messages", "either messages or a prompt"),
        (ChatRequest("c", (Message("user", "x"),), tools=(Tool("f", "{"),)), "tools", "tools[0].function"),
        (ChatRequest("c", (Message("user", "x"),), tool_choice=ToolChoice("required")), "tool_choice", "no tools"),
    ],
)
def test_what_is_wrong_is_named(speaking: Speaking, asked: Any, param: str, says: str) -> None:
    (failed,) = speaking.ask(asked)
    assert isinstance(failed, Failed)
    assert (failed.status, failed.param) == (400, param)
    assert says in failed.message


def test_greedy_answers_are_the_models_and_the_stream_is_the_whole(speaking: Speaking) -> None:
    for chat in speaking.expected["chats"]:
        request = AnswerRequest("x", tuple(chat["ids"]), GREEDY, TOKENS)
        whole = AnswerWriter(request, speaking.chat)
        parts: list[Any] = []
        for token in speaking.greedy(chat["ids"]):
            parts += () if whole.done else whole.push(token)
        asked = ChatRequest("c", messages(chat), SamplingParams(temperature=0.0), max_tokens=TOKENS)
        replies = speaking.ask(asked)
        told = "".join(reply.text for reply in replies if isinstance(reply, Delta))
        assert told == "".join(reply.text for reply in parts if isinstance(reply, Delta))
        # Waiting, and what of the prompt was computed before, are the service's alone.
        assert replace(last_of(replies), queue_seconds=0.0, cached_tokens=0) == parts[-1]


@pytest.mark.parametrize("name", [None, "now"])
def test_a_call_that_has_to_come_is_begun(speaking: Speaking, name: str | None) -> None:
    """The random model cannot finish a call, so the limit ends it: what it had to begin with is told as text."""
    choice = ToolChoice("required", name)
    asked = ChatRequest(
        "c", (Message("user", "x"),), SamplingParams(temperature=0.0), 30, tools=(WEATHER, NOW), tool_choice=choice
    )
    replies = speaking.ask(asked)
    told = "".join(reply.text for reply in replies if isinstance(reply, Delta))
    names = ("now\n",) if name else ("get_weather\n", "now\n")
    assert told.startswith(names)
