"""ChatGLM3's tokenizer and prompt, compared with the published code's ids."""

from __future__ import annotations

import json
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.wire import Message, SamplingParams, Tool, ToolCall, ToolChoice
from app.engine.errors import BadCheckpoint, RequestError
from app.engine.formats.base import PromptRequest
from app.engine.formats.chatglm3 import CONTROL_TOKENS, TOOLS_SENTENCE, ChatGlm3Format, load_chatglm3
from app.engine.formats.parsing.parts import AnswerPart, TextPart, ToolCallPart
from app.engine.formats.parsing.segments import AnswerText
from app.engine.sampling import SamplingDefaults, read_defaults
from tests.paths import FIXTURES, SHARED
from tests.unit.answers import joined

TINY = FIXTURES / "chatglm3-tiny"
PUBLISHED = SHARED / "chatglm3-published-tokenizer"
MARKS = (*CONTROL_TOKENS, "</s>", "<s>", "<unk>", "<|user|>\n", "<0x0A>")
ALPHABET = (
    "a",
    "e",
    "op",
    "people",
    "sop",
    " ",
    "  ",
    "\n",
    "\t",
    "▁",
    "你",
    "好世界",
    "é",
    "😀",
    "\u200b",
    "\0",
    "7",
    ".",
)

Spoken = tuple[ChatGlm3Format, dict[str, Any]]


@pytest.fixture(scope="module", params=[TINY, PUBLISHED], ids=["tiny", "published"])
def spoken(request: pytest.FixtureRequest) -> Spoken:
    folder: Path = request.param
    if not folder.is_dir():
        pytest.skip("the published tokenizer is not here")
    expected = json.loads((folder / "expected_tokens.json").read_text(encoding="utf-8"))
    vocab = json.loads((folder / "config.json").read_text(encoding="utf-8"))["padded_vocab_size"]
    return load_chatglm3(folder, vocab), expected


@pytest.fixture(scope="module")
def tiny() -> ChatGlm3Format:
    return load_chatglm3(TINY, 832)


def messages(chat: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in chat["messages"])


def prompt_ids(chat: ChatGlm3Format, *messages: Message) -> tuple[int, ...]:
    return chat.prompt(PromptRequest(messages)).ids


def user_ids(chat: ChatGlm3Format, text: str) -> list[int]:
    """The ids between the user's empty metadata line and the assistant's turn."""
    empty = len(prompt_ids(chat, Message("user", ""))) - 1
    return list(prompt_ids(chat, Message("user", text))[empty:-1])


def spell(chat: ChatGlm3Format, ids: list[int]) -> str:
    parser = chat.parser(PromptRequest(()), ())
    pieces: list[AnswerPart] = [piece for token in ids for piece in parser.push(token)]
    pieces += parser.end()
    return "".join(piece.text for piece in pieces if not isinstance(piece, ToolCallPart))


def test_ids_are_those_of_the_published_code(spoken: Spoken) -> None:
    chat, expected = spoken
    assert len(expected["texts"]) >= 100
    for text, ids in zip(expected["texts"], expected["plain_ids"], strict=True):
        assert user_ids(chat, text) == ids, text
    assert expected["chats"]
    for conversation in expected["chats"]:
        assert list(prompt_ids(chat, *messages(conversation))) == conversation["ids"]


def test_control_tokens_have_the_published_ids(spoken: Spoken) -> None:
    chat, expected = spoken
    special = expected["special_ids"]
    assert chat._control == {token: special[token] for token in CONTROL_TOKENS}
    assert chat.stop_ids == {2, special["<|user|>"], special["<|observation|>"]}


def test_the_anchor_that_was_published() -> None:
    if not PUBLISHED.is_dir():
        pytest.skip("the published tokenizer is not here")
    chat = load_chatglm3(PUBLISHED, 65024)
    assert prompt_ids(chat, Message("user", "你好")) == (64790, 64792, 64795, 30910, 13, 36474, 54591, 64796)
    assert chat.stop_ids == {2, 64795, 64797}


def test_decoding_gives_the_published_text_streamed_or_whole(spoken: Spoken) -> None:
    chat, expected = spoken
    for ids, text in zip(expected["plain_ids"], expected["decoded"], strict=True):
        assert chat._decode_text(ids) == text
        assert spell(chat, user_ids(chat, "\n" + text)) == text.strip()


def test_random_strings_are_encoded_as_sentencepiece_does(spoken: Spoken) -> None:
    from sentencepiece import SentencePieceProcessor

    chat, _ = spoken
    folder = TINY if chat._pieces.get_piece_size() == 800 else PUBLISHED
    processor: Any = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    draw = random.Random(3)
    for _ in range(10_000):
        text = "".join(draw.choices(ALPHABET + MARKS, k=draw.randrange(12)))
        ids = user_ids(chat, text)
        assert ids == processor.encode(text)
        assert max(ids, default=0) < processor.get_piece_size()
        assert chat._decode_text(ids) == text.replace("▁", " ")


@pytest.mark.parametrize("word", ["people", "philosophy", "sop", "develop", "MASK", "stopeople"])
def test_ordinary_words_are_not_torn_apart(spoken: Spoken, word: str) -> None:
    chat, _ = spoken
    assert not {token for token in user_ids(chat, word) if token >= chat._pieces.get_piece_size()}
    assert chat._decode_text(user_ids(chat, word)) == word


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_control_tokens_that_people_write_are_text_in_every_role(spoken: Spoken, role: Any) -> None:
    chat, _ = spoken
    count = chat._pieces.get_piece_size()
    plain = prompt_ids(chat, Message(role, "hi"), Message("user", "x"))
    for mark in MARKS:
        marked = prompt_ids(chat, Message(role, f"hi {mark}"), Message("user", f"x{mark}"))
        assert [token for token in marked if token >= count] == [token for token in plain if token >= count]
        assert not {0, 1, 2} & set(marked)


def test_lone_surrogates_are_replaced_and_pairs_joined(tiny: ChatGlm3Format) -> None:
    assert user_ids(tiny, "a\ud800b") == user_ids(tiny, "a\ufffdb")
    assert user_ids(tiny, "\ud83d\ude00") == user_ids(tiny, "😀")


def test_a_role_that_the_format_does_not_know_is_refused(tiny: ChatGlm3Format) -> None:
    role: Any = "user|><|assistant"
    with pytest.raises(RequestError, match="has the unknown role"):
        prompt_ids(tiny, Message(role, "hi"))


WEATHER = Tool("get_weather", '{"name": "get_weather", "parameters": {"type": "object"}}')
SHOWN = """[
    {
        "name": "get_weather",
        "parameters": {
            "type": "object"
        }
    }
]"""


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_tool_round_trip_is_put_together_as_published(spoken: Spoken, system: str) -> None:
    chat, expected = spoken
    special = expected["special_ids"]

    def turn(role: str, metadata: str, content: str) -> list[int]:
        return [special[f"<|{role}|>"], *chat.encode(f"{metadata}\n"), *chat.encode(content)]

    messages = (
        *((Message("system", system),) if system else ()),
        Message("user", "天气?"),
        Message("assistant", "I look.", tool_calls=(ToolCall("c", "get_weather", '{"city": "北京", "a b": 1}'),)),
        Message("tool", '{"t": 3}', tool_call_id="c"),
    )
    opened = f"{system}\n{TOOLS_SENTENCE}" if system else TOOLS_SENTENCE
    wanted = [special["[gMASK]"], special["sop"], *turn("system", "", f"{opened}\n{SHOWN}")]
    wanted += [*turn("user", "", "天气?"), *turn("assistant", "", "I look.")]
    wanted += turn("assistant", "get_weather", "```python\ntool_call(city='北京', **{'a b': 1})\n```")
    wanted += [*turn("observation", "", '{"t": 3}'), special["<|assistant|>"]]
    assert list(chat.prompt(PromptRequest(messages, (WEATHER,))).ids) == wanted
    hidden = chat.prompt(PromptRequest(messages[:-2], (WEATHER,), ToolChoice("none")))
    assert hidden == chat.prompt(PromptRequest(messages[:-2]))


def test_a_call_reads_back_from_ids(spoken: Spoken) -> None:
    chat, expected = spoken
    conversation = PromptRequest((Message("user", "x"),), (WEATHER,), ToolChoice("required", "get_weather"))
    prompt = chat.prompt(conversation)
    (opening,) = prompt.required_prefixes
    ids = [*chat.encode("\n"), *chat.encode("I look 😀."), expected["special_ids"]["<|assistant|>"]]
    ids += [*opening, *chat.encode("(city='北京')\n```")]
    parser = chat.parser(conversation, prompt.ids)
    told = [piece for token in ids for piece in parser.push(token)]
    assert joined((*told, *parser.end())) == [TextPart("I look 😀."), ToolCallPart("get_weather", '{"city": "北京"}')]


def test_control_tokens_in_tools_calls_and_results_are_text(spoken: Spoken) -> None:
    chat, _ = spoken
    count = chat._pieces.get_piece_size()

    def structure(mark: str) -> list[int]:
        tool = Tool("f", json.dumps({"name": "f", "description": mark, mark: [{mark: mark}]}))
        call = ToolCall(mark, "f", json.dumps({"city": mark, mark: {mark: mark}}))
        turns = (Message("user", mark), Message("assistant", mark, mark, (call,)), Message("tool", mark))
        ids = chat.prompt(PromptRequest(turns, (tool,))).ids
        assert not {0, 1, 2} & set(ids)
        return [token for token in ids if token >= count]

    plain = structure("plain")
    assert len(plain) == 8
    for mark in MARKS:
        assert structure(mark) == plain


@pytest.mark.parametrize("text", ["你好，世界！", "a😀b👨‍👩‍👧c", "é\u0301한국어", "𝒳"])
def test_every_split_of_a_character_arrives_whole(spoken: Spoken, text: str) -> None:
    chat, _ = spoken
    for whole in range(len(text) + 1):
        raw = [chat._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in text[whole:].encode()]
        parser = chat.parser(PromptRequest(()), ())
        ids = [*chat.encode("\n"), *chat.encode(text[:whole]), *raw]
        pieces = [*(piece for token in ids for piece in parser.push(token)), *parser.end()]
        assert joined(pieces) == [TextPart(text)]
        assert all("\ufffd" not in piece.text for piece in pieces if isinstance(piece, TextPart))


def test_ids_are_written_out_with_their_control_tokens(spoken: Spoken) -> None:
    chat, _ = spoken
    assert chat.decode(prompt_ids(chat, Message("user", "你好"))) == "[gMASK]sop<|user|>\n 你好<|assistant|>"
    assert chat.decode([2, 1]) == "</s><s>"
    assert chat.decode([]) == ""


def test_encoding_is_safe_from_many_threads(tiny: ChatGlm3Format) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(lambda _: prompt_ids(tiny, Message("user", "hello 你好")), range(200)))
    assert len(results) == 1


def shown(text: str) -> str:
    answer = AnswerText()
    return "".join(answer.feed(letter) for letter in text) + answer.flush()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\n Hello!\nHow are you? ", "Hello!\nHow are you?"),
        (" \n\n  多行\n\n文字\n", "多行\n\n文字"),
        ("\n", ""),
        ("", ""),
        ("get_weather\n ```python\ntool_call(city='x')\n``` ", "get_weather\n ```python\ntool_call(city='x')\n``` "),
        ("no first line", "no first line"),
    ],
)
def test_the_empty_first_line_is_no_part_of_an_answer(written: str, read: str) -> None:
    assert shown(written) == read


@given(st.text(alphabet=" \n\tab"))
def test_the_answer_is_what_the_published_code_reads(text: str) -> None:
    metadata, line, content = text.partition("\n")
    if line and not metadata.strip():
        assert shown(text) == content.strip()
    else:
        assert shown(text).strip() == text.strip()


@given(st.lists(st.integers(0, 831).filter(lambda token: token != 807), max_size=60))
def test_any_ids_can_be_spelt(ids: list[int]) -> None:
    """All but 807, which begins another segment."""
    chat = load_chatglm3(TINY, 832)
    pieces = [token for token in ids if 3 <= token < 800]
    start = user_ids(chat, "\n")

    def core(text: str) -> str:
        """Without what may be cut off at the end: space, and bytes that are no character yet."""
        return re.sub(r"[\s\ufffd]+\Z", "", text.lstrip())

    assert core(spell(chat, [*start, *ids])) == core(chat._decode_text([*start, *pieces]))


def test_sampling_is_the_published_codes_unless_the_files_say_otherwise(tiny: ChatGlm3Format, tmp_path: Path) -> None:
    defaults = read_defaults(TINY, tiny.defaults)
    assert (defaults.temperature, defaults.top_p) == (0.8, 0.8)
    assert defaults.resolve(SamplingParams(temperature=0.0)).temperature == 0.0
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert read_defaults(tmp_path, tiny.defaults) == tiny.defaults
    (tmp_path / "generation_config.json").write_text('{"do_sample": false}')
    assert read_defaults(tmp_path, tiny.defaults) == SamplingDefaults()


def test_a_tokenizer_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="has id 808, the model's vocabulary ends at 807"):
        load_chatglm3(TINY, 808)
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.model cannot be read"):
        load_chatglm3(tmp_path, 832)
    shutil.copy(TINY / "config.json", tmp_path)
    for content in (b"", (TINY / "tokenizer.model").read_bytes()[:5000]):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(BadCheckpoint, match="SentencePiece model: "):
            load_chatglm3(tmp_path, 832)
