"""The published layouts' fixtures through the whole service: exact prompt ids, and streams that lose nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.paths import FIXTURES
from tests.processes.service import Service, running

TOKENS = 24


@pytest.fixture(scope="module", params=["chatglm3-tiny", "glm4-9b-chat-tiny"])
def folder(request: pytest.FixtureRequest) -> Path:
    return FIXTURES / str(request.param)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), GLM_MODEL=str(folder), GLM_PRECISION="fp32") as service:
        service.wait_for("ready")
        yield service


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    return json.loads((folder / "expected_tokens.json").read_text(encoding="utf-8"))


def conversation(chat: Any) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in chat["messages"]]


def test_prompt_ids_of_every_chat(service: Service, expected: Any) -> None:
    assert expected["chats"]
    for chat in expected["chats"]:
        code, reply = service.request("POST", "/tokenize", {"messages": conversation(chat)})
        assert (code, reply["tokens"]) == (200, chat["ids"])
        assert (reply["count"], reply["max_model_len"]) == (len(chat["ids"]), service.status()["max_model_len"])


def test_ids_of_every_text_and_texts_of_all_ids(service: Service, expected: Any) -> None:
    texts = zip(expected["texts"], expected["plain_ids"], expected["decoded"], strict=True)
    for text, ids, decoded in texts:
        code, reply = service.request("POST", "/tokenize", {"prompt": text})
        assert (code, reply["tokens"]) == (200, ids)
        code, reply = service.request("POST", "/detokenize", {"tokens": ids})
        assert (code, reply) == (200, {"prompt": decoded})


def test_ids_that_the_tokenizer_lacks_are_refused(service: Service) -> None:
    code, reply = service.request("POST", "/detokenize", {"tokens": [1, 10**6]})
    assert (code, reply["error"]["param"]) == (400, "tokens")


def test_stream_and_whole_give_the_same_text(service: Service, expected: Any) -> None:
    for chat in expected["chats"]:
        body = {"messages": conversation(chat), "temperature": 0, "max_tokens": TOKENS}
        code, reply = service.request("POST", "/v1/chat/completions", body)
        assert (code, reply["usage"]["prompt_tokens"]) == (200, len(chat["ids"]))
        assert streamed_text(service, body) == reply["choices"][0]["message"]["content"]


def streamed_text(service: Service, body: dict[str, Any]) -> str:
    """The text of a stream whose every event has to be UTF-8 by itself."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({**body, "stream": True}), {"Content-Type": "application/json"}
        )
        raw = connection.getresponse().read()
    finally:
        connection.close()
    events = [event for event in raw.split(b"\n\n") if event.startswith(b"data: {")]
    deltas = [json.loads(event.decode("utf-8")[6:])["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content") or "" for delta in deltas)
