"""GLM-4-9B-chat's tokenizer, read from its list of ranks, and its prompt, compared with the published code's ids."""

from __future__ import annotations

import base64
import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from app.contract.wire import Message, SamplingParams, Tool, ToolCall, ToolChoice
from app.engine.errors import BadCheckpoint, RequestError
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.formats.glm4 import Glm4Format
from app.engine.formats.open import load_format
from app.engine.formats.parsing.parts import TextPart, ToolCallPart
from app.engine.formats.rank_tokenizer import CONTROL_TOKENS, SPLIT
from app.engine.sampling import read_defaults
from tests.paths import FIXTURES, SHARED
from tests.unit.answers import joined

TINY = FIXTURES / "glm4-9b-chat-tiny"
PUBLISHED = SHARED / "glm4-9b-chat-published-tokenizer"
MARKS = (*CONTROL_TOKENS, "<|user|>\n", "<think>", "<|", "|>", "[gMASK]<sop>")
ALPHABET = (
    "a",
    "people",
    "THE",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "你",
    "好世界",
    "é",
    "😀",
    "\u200b",
    "\0",
    "7",
    "1234",
    "'s",
    ".",
)
WEATHER = Tool("get_weather", json.dumps({"name": "get_weather", "parameters": {"type": "object"}}))

Spoken = tuple[ChatFormat, dict[str, Any], Path]


@pytest.fixture(scope="module", params=["tiny", "published"])
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    folder = TINY if request.param == "tiny" else PUBLISHED
    if not folder.is_dir():
        pytest.skip("the published tokenizer is not here")
    expected = json.loads((folder / "expected_tokens.json").read_text(encoding="utf-8"))
    if folder == TINY:
        return load_format(TINY, 832), expected, folder
    # The published folder has no template: the tiny one's is the published text.
    copy = tmp_path_factory.mktemp("published")
    shutil.copyfile(folder / "tokenizer.model", copy / "tokenizer.model")
    fields = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
    (copy / "tokenizer_config.json").write_text(json.dumps({"chat_template": fields["chat_template"]}))
    (copy / "config.json").write_text('{"eos_token_id": [151329, 151336, 151338]}')
    return load_format(copy, 151552), expected, folder


@pytest.fixture(scope="module")
def tiny() -> ChatFormat:
    return load_format(TINY, 832)


def test_ids_are_those_of_the_published_code(spoken: Spoken) -> None:
    chat, expected, _ = spoken
    assert len(expected["texts"]) >= 100
    for text, ids, decoded in zip(expected["texts"], expected["plain_ids"], expected["decoded"], strict=True):
        assert list(chat.encode(text)) == ids, text
        assert chat.decode(ids) == decoded
    for conversation in expected["chats"]:
        messages = tuple(Message(turn["role"], turn["content"]) for turn in conversation["messages"])
        assert list(chat.prompt(PromptRequest(messages)).ids) == conversation["ids"]


def test_control_tokens_have_the_published_ids(spoken: Spoken) -> None:
    chat, expected, _ = spoken
    special = expected["special_ids"]
    assert isinstance(chat, Glm4Format)
    assert chat._control == special
    assert chat.stop_ids == {special["<|endoftext|>"], special["<|user|>"], special["<|observation|>"]}
    assert chat.decode([special["<|user|>"], *chat.encode("\n你好")]) == "<|user|>\n你好"


class SlowBpe:
    """The rank file read anew, merged pair by pair as its authors describe it; the split is tokenizers'."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "tokenizer.model").read_text(encoding="ascii").splitlines()
        pairs = (line.split() for line in lines)
        self._ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
        self._split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
        self.word = cache(self._word)

    def encode(self, text: str) -> list[int]:
        return [token for word, _ in self._split.pre_tokenize_str(text) for token in self.word(word.encode())]

    def _word(self, word: bytes) -> tuple[int, ...]:
        if word in self._ranks:
            return (self._ranks[word],)
        parts = [bytes([byte]) for byte in word]
        while True:
            found = [(self._ranks.get(parts[n] + parts[n + 1], 1 << 30), n) for n in range(len(parts) - 1)]
            best, place = min(found, default=(1 << 30, 0))
            if best == 1 << 30:
                return tuple(self._ranks[part] for part in parts)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_random_strings_are_encoded_as_an_independent_reader_does(spoken: Spoken) -> None:
    chat, _, folder = spoken
    slow = SlowBpe(folder)
    draw = random.Random(4)
    first_control = chat.id_limit - len(CONTROL_TOKENS)
    for _ in range(10_000):
        text = "".join(draw.choices(ALPHABET + MARKS, k=draw.randrange(12)))
        ids = chat.encode(text)
        assert list(ids) == slow.encode(text), text
        assert max(ids, default=0) < first_control
        assert chat.decode(ids) == text


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_control_tokens_that_people_write_are_text_in_every_role(spoken: Spoken, role: Any) -> None:
    chat, expected, _ = spoken
    control = set(expected["special_ids"].values())

    def structure(*messages: Message, **more: Any) -> list[int]:
        return [token for token in chat.prompt(PromptRequest(messages, **more)).ids if token in control]

    plain = structure(Message(role, "hi"), Message("user", "x"))
    assert len(plain) == 5
    for mark in MARKS:
        assert structure(Message(role, f"hi {mark}"), Message("user", f"x{mark}")) == plain


def hostile(mark: str) -> Tool:
    schema = {"type": "object", "properties": {mark: {"type": "string", "description": mark, mark: [mark]}}}
    return Tool("get_weather", json.dumps({"name": "get_weather", "description": mark, "parameters": schema, mark: 1}))


def test_control_tokens_in_tools_calls_and_results_are_text(tiny: ChatFormat) -> None:
    def structure(mark: str) -> list[int]:
        call = ToolCall("call_1", "get_weather", json.dumps({"city": mark, mark: [mark, {mark: mark}]}))
        messages = (
            Message("user", "x"),
            Message("assistant", mark, reasoning=mark, tool_calls=(call,)),
            Message("tool", mark, tool_call_id=mark),
        )
        return [token for token in tiny.prompt(PromptRequest(messages, (hostile(mark),))).ids if token >= 800]

    plain = structure("plain")
    assert len(plain) == 8
    for mark in MARKS:
        assert structure(mark) == plain


def test_names_that_are_no_names_are_refused(tiny: ChatFormat) -> None:
    user = Message("user", "x")
    for name in ("<|user|>", "", "a b", "x" * 65, "名", "a\n"):
        tool = Tool(name, json.dumps({"name": name}))
        with pytest.raises(RequestError, match=r"tools\[0\]\.function\.name is") as caught:
            tiny.prompt(PromptRequest((user,), (tool,)))
        assert caught.value.reply.param == "tools"
        with pytest.raises(RequestError, match=r"messages\[0\]\.tool_calls: .* is not a valid tool name"):
            tiny.prompt(PromptRequest((Message("assistant", "", tool_calls=(ToolCall("1", name, "{}"),)), user)))
    role: Any = "user|><|assistant"
    with pytest.raises(RequestError, match=r"messages\[0\] has the unknown role"):
        tiny.prompt(PromptRequest((Message(role, "x"),)))


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ((Tool("f", "{"),), r"tools\[0\]\.function cannot be read as JSON"),
        ((WEATHER, Tool("f", "[]")), r"tools\[1\]\.function must be a JSON object"),
        ((Tool("f", '{"name": "g"}'),), "its name is 'g' here and 'f' there"),
        ((Tool("f", '{"name": "f", "x": NaN}'),), "NaN is not JSON"),
        ((Tool("f", '{"name": "f", "x": 1e999}'),), "cannot be read as JSON"),
        ((Tool("f", '{"name": "f", "x": ' + "[" * 99_999 + "}"),), "cannot be read as JSON"),
        ((WEATHER, WEATHER), "two tools are called 'get_weather'"),
        (tuple(Tool(f"f{n}", f'{{"name": "f{n}"}}') for n in range(129)), "129 tools; at most 128"),
        ((Tool("f", json.dumps({"name": "f", "x": "x" * 300_000})),), "300.* bytes long; at most 262144"),
    ],
)
def test_tools_that_cannot_be_shown_are_refused_by_reason(tiny: ChatFormat, tools: tuple[Tool, ...], says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        tiny.prompt(PromptRequest((Message("user", "x"),), tools))
    assert (caught.value.reply.status, caught.value.reply.param) == (400, "tools")


def test_arguments_that_are_no_object_are_refused(tiny: ChatFormat) -> None:
    call = ToolCall("call_1", "f", "[1]")
    with pytest.raises(RequestError, match=r"messages\[1\]\.tool_calls: the arguments of f must be a JSON object"):
        tiny.prompt(PromptRequest((Message("user", "x"), Message("assistant", "", tool_calls=(call,)))))


def test_a_tool_round_trip_is_shown_as_published(tiny: ChatFormat) -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "天气?"),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "get_weather", '{"city":"北京"}'),)),
        Message("tool", '{"t": 3}', tool_call_id="call_1"),
    )
    shown = tiny.decode(tiny.prompt(PromptRequest(messages, (WEATHER,))).ids)
    tools, rest = shown.split("在调用上述函数时，请使用 Json 格式表示调用的参数。")
    assert tools.startswith("[gMASK]<sop><|system|>\n你是一个名为 GLM-4 的人工智能助手。")
    assert tools.endswith(
        '# 可用工具\n\n## get_weather\n\n{\n    "name": "get_weather",\n    "parameters": {\n'
        '        "type": "object"\n    }\n}\n'
    )
    assert rest == (
        '<|system|>\nBe brief.<|user|>\n天气?<|assistant|>get_weather\n{"city": "北京"}'
        '<|observation|>\n{"t": 3}<|assistant|>'
    )
    hidden = tiny.prompt(PromptRequest(messages[:2], (WEATHER,), ToolChoice("none")))
    assert hidden == tiny.prompt(PromptRequest(messages[:2]))


def test_a_call_and_text_read_back_from_ids(tiny: ChatFormat) -> None:
    conversation = PromptRequest((Message("user", "x"),), (WEATHER,), ToolChoice("required"))
    prompt = tiny.prompt(conversation)
    assert prompt.required_prefixes == (tiny.encode("get_weather\n"),)
    assistant = prompt.ids[-1]
    ids = (*tiny.encode("\nI look."), assistant, *prompt.required_prefixes[0], *tiny.encode('{"city": "北京😀"}'))
    parser = tiny.parser(conversation, prompt.ids)
    told = [piece for token in ids for piece in parser.push(token)]
    assert joined((*told, *parser.end())) == [TextPart("I look."), ToolCallPart("get_weather", '{"city": "北京😀"}')]


@pytest.mark.parametrize("text", ["你好，世界！", "a😀b👨‍👩‍👧c", "é\u0301한국어", "𝒳"])
def test_every_split_of_a_character_arrives_whole(tiny: ChatFormat, text: str) -> None:
    """One id a byte is the finest split that there is; the answer's pieces are whole characters all the same."""
    single = {raw: token for token, raw in raw_bytes() if len(raw) == 1}
    assert len(single) == 256
    for whole in range(len(text) + 1):
        ids = [*tiny.encode(text[:whole]), *(single[bytes([byte])] for byte in text[whole:].encode())]
        parser = tiny.parser(PromptRequest(()), ())
        pieces = [*(piece for token in ids for piece in parser.push(token)), *parser.end()]
        assert joined(pieces) == [TextPart(text)]
        assert all("\ufffd" not in piece.text for piece in pieces if isinstance(piece, TextPart))


def raw_bytes() -> list[tuple[int, bytes]]:
    lines = (TINY / "tokenizer.model").read_text(encoding="ascii").splitlines()
    return [(int(rank), base64.b64decode(token)) for token, rank in (line.split() for line in lines)]


def test_lone_surrogates_are_replaced_and_pairs_joined(tiny: ChatFormat) -> None:
    def ids(text: str, tool: str) -> tuple[int, ...]:
        shown = Tool("f", json.dumps({"name": "f", tool: tool}))
        call = ToolCall("1", "f", json.dumps({tool: [tool]}))
        turns = (Message("user", text), Message("assistant", text, tool_calls=(call,)), Message("tool", text))
        return tiny.prompt(PromptRequest(turns, (shown,))).ids

    assert ids("a\ud800b", "\udfff") == ids("a\ufffdb", "\ufffd")
    assert ids("\ud83d\ude00", "\ud83d\ude00") == ids("😀", "😀")


def test_sampling_defaults_are_the_files_or_the_published_codes(tiny: ChatFormat, tmp_path: Path) -> None:
    for folder in (TINY, tmp_path):
        defaults = read_defaults(folder, tiny.defaults)
        assert (defaults.temperature, defaults.top_p) == (0.8, 0.8)
    assert read_defaults(TINY, tiny.defaults).resolve(SamplingParams(temperature=0.0)).temperature == 0.0


def test_a_rank_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="has id 813, the model's vocabulary ends at 812"):
        load_format(TINY, 813)
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copyfile(TINY / name, tmp_path / name)
    good = (TINY / "tokenizer.model").read_bytes()
    for content in (b"", b"<html>", good[:3000], good.replace(b" 700\n", b" 701\n"), good.replace(b"AA==", b"A*==")):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(BadCheckpoint, match=r"tokenizer\.model .*GLM-4-9B-chat's list of ranks"):
            load_format(tmp_path, 832)
    (tmp_path / "tokenizer.model").write_bytes(good)
    text = (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(text.replace('"<|user|>"', '"<|other|>"', 1), encoding="utf-8")
    with pytest.raises(BadCheckpoint, match=r"calls id 807 '<\|other\|>'; GLM-4-9B-chat's is '<\|user\|>'"):
        load_format(tmp_path, 832)
    for config in ("{}", "[]", '{"chat_template": 5}', '{"chat_template": ""}'):
        (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
        with pytest.raises(BadCheckpoint, match="no chat_template"):
            load_format(tmp_path, 832)
    for added in ([1], {"807": 5}, {"807": {}}):
        config = json.dumps({"chat_template": "x", "added_tokens_decoder": added})
        (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
        with pytest.raises(BadCheckpoint, match="added_tokens_decoder is not a table of tokens"):
            load_format(tmp_path, 832)
