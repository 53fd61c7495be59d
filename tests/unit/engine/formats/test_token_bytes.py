"""What single ids stand for: put together they are the text, for every kind of tokenizer."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models

from app.engine.formats.base import ChatFormat
from app.engine.formats.open import load_format
from app.engine.formats.token_bytes import TokenBytes
from tests.paths import FIXTURES, TOP

MODELS = ("chatglm3-tiny", "glm4-9b-chat-tiny", "tool-caller", "chatglm3-caller")
FOLDERS = [*(FIXTURES / name for name in MODELS), TOP / "app" / "demo_model"]
TEXTS = ["people use sop", "你好，世界", "😀 é\n\n\tx  y", "<|user|>[gMASK]</think>", "\x00\u200b龘"]
VOCAB = 1 << 20


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def chat(request: pytest.FixtureRequest) -> ChatFormat:
    return load_format(request.param, VOCAB)


def test_the_bytes_of_an_answers_tokens_are_its_text(chat: ChatFormat) -> None:
    for text in TEXTS:
        spelt = b"".join(chat.token_bytes(token) for token in chat.encode(text)).decode()
        assert spelt.removeprefix(" ") == text, "SentencePiece puts a space before every text"


def test_control_tokens_have_their_names_and_other_ids_nothing(chat: ChatFormat) -> None:
    for token in sorted(chat.stop_ids):
        assert chat.token_bytes(token).decode() == chat.decode((token,)) != ""
    assert chat.token_bytes(chat.id_limit) == chat.token_bytes(chat.id_limit + 1000) == b""


def test_every_id_has_bytes(chat: ChatFormat) -> None:
    named = [token for token in range(chat.id_limit) if chat.token_bytes(token)]
    assert len(named) >= chat.id_limit - 3


def test_a_tokenizer_of_texts_and_bytes() -> None:
    vocab = {"▁hi": 0, "<0xE4>": 1, "x": 2, "<s>": 3}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    spelt = TokenBytes(tokenizer, {"<s>": 3})
    assert [spelt.of(token) for token in range(5)] == [b" hi", b"\xe4", b"x", b"<s>", b""]
