"""Formats of checkpoints that bring a template: 0414, Z1, 4.5 to 4.7, and templates of no known kind.

The templates here are short ones of the published kinds: same roles, same tags, fewer words of instruction.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, models

from app.contract.wire import Message, Tool, ToolCall, ToolChoice
from app.engine.errors import BadCheckpoint, RequestError
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.formats.glm4 import Glm4Format
from app.engine.formats.glm45 import TAGS, Glm45Format
from app.engine.formats.open import load_format
from app.engine.formats.parsing.parts import AnswerPart, ReasoningPart, TextPart, ToolCallPart
from app.engine.formats.template import TemplateFormat
from tests.unit.answers import joined
from tools.checkpoints.glm_tokenizer import BYTES, CONTROL_TOKENS, bare_tokenizer, save_tokenizer

VOCAB = 320
T0414 = """[gMASK]<sop>
{%- if tools -%}
<|system|>
# 可用工具
{%- for tool in tools %}{% set function = tool.function if tool.get("function") else tool %}

## {{ function.name }}

{{ function | tojson(indent=4, ensure_ascii=False) }}
{%- endfor %}
{%- endif -%}
{%- for message in messages %}
{%- set meta = message.get("metadata", "") %}
{%- if message.role == 'system' %}
<|system|>
{{ message.content }}
{%- elif message.role == 'user' %}<|user|>
{{ message.content }}
{%- elif message.role == 'assistant' %}<|assistant|>{{ meta }}
{{ message.content }}
{%- elif message.role == 'observation' %}<|observation|>
{{ message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
Z1 = T0414.replace("generation_prompt %}<|assistant|>", "generation_prompt %}<|assistant|>\n<think>")
T46 = """[gMASK]<sop>
{%- if tools %}<|system|>
# Tools
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{%- endfor %}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|user|>
{{ m.content }}{{ '/nothink' if (enable_thinking is defined and not enable_thinking) else '' }}
{%- elif m.role == 'assistant' %}<|assistant|>
{%- set content = m.content %}{% set thought = '' %}
{%- if m.reasoning_content is string %}{% set thought = m.reasoning_content %}
{%- elif '</think>' in content %}{% set thought = content.split('</think>')[0] %}
{%- set content = content.split('</think>')[-1] %}{% endif %}
{{- '\\n<think>' + thought + '</think>' }}{{ '\\n' + content.strip() if content.strip() else '' }}
{%- for tc in m.tool_calls or [] %}{% set tc = tc.function %}
{{- '\\n<tool_call>' + tc.name }}
{% for k, v in tc.arguments.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>
{%- endfor %}
{%- elif m.role == 'tool' %}<|observation|>{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- elif m.role == 'system' %}<|system|>
{{ m.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}{% endif %}"""
T47 = (
    T46.replace("{{- '\\n<tool_call>'", "{{- '<tool_call>'")
    .replace("tc.name }}\n{% for k, v in tc.arguments.items() %}\n", "tc.name }}{% for k, v in tc.arguments.items() %}")
    .replace("</arg_key>\n<arg_value>", "</arg_key><arg_value>")
    .replace("</arg_value>\n{% endfor %}\n</tool_call>\n", "</arg_value>{% endfor %}</tool_call>")
    .replace("{{ '/nothink' if (enable_thinking is defined and not enable_thinking) else '' }}", "")
    .replace("'\\n<think></think>' if (", "'</think>' if (")
    .replace("not enable_thinking) else '' }}{% endif %}", "not enable_thinking) else '<think>' }}{% endif %}")
)
TEMPLATES = {"0414": T0414, "z1": Z1, "4.6": T46, "4.7": T47}
WEATHER = Tool(
    "get_weather",
    json.dumps(
        {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        }
    ),
)
NOW = Tool("now", '{"name": "now"}')
USER = Message("user", "天气?")


def make(folder: Path, template: str, tags: tuple[str, ...] = TAGS, vocab: int = VOCAB) -> ChatFormat:
    """A byte-level tokenizer with GLM's control tokens, and the tags that later ones have as tokens."""
    folder.mkdir()
    tokenizer = bare_tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(BYTES)}, merges=[]))
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in (*tags, "<tool_response>", "/nothink")])
    save_tokenizer(tokenizer, folder, 512)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"chat_template": template}))
    (folder / "config.json").write_text("{}")
    return load_format(folder, vocab)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatFormat]:
    top = tmp_path_factory.mktemp("formats")
    return {name: make(top / name, text, TAGS if name[0] == "4" else ()) for name, text in TEMPLATES.items()}


def shown(chat: ChatFormat, conversation: PromptRequest) -> str:
    return chat.decode(chat.prompt(conversation).ids)


def read(chat: ChatFormat, conversation: PromptRequest, answer: str) -> list[AnswerPart]:
    """What an answer of these words says, its ids made as the model's own: tags are tokens."""
    assert isinstance(chat, TemplateFormat)
    parser = chat.parser(conversation, chat.prompt(conversation).ids)
    ids = chat._encoder.encode(answer)
    return joined((*(piece for token in ids for piece in parser.push(token)), *parser.end()))


def test_the_format_is_told_by_tokens_and_template(formats: dict[str, ChatFormat], tmp_path: Path) -> None:
    kinds = {"0414": Glm4Format, "z1": Glm4Format, "4.6": Glm45Format, "4.7": Glm45Format}
    assert {name: type(chat) for name, chat in formats.items()} == kinds
    for chat in formats.values():
        assert {chat.decode([stop]) for stop in chat.stop_ids} == {"<|endoftext|>", "<|user|>", "<|observation|>"}
    other = make(tmp_path / "other", "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>")
    assert type(other) is TemplateFormat
    with pytest.raises(RequestError, match="does not support tools"):
        other.prompt(PromptRequest((USER,), (NOW,)))
    assert other.prompt(PromptRequest((USER,), (NOW,), ToolChoice("none"))) == other.prompt(PromptRequest((USER,)))
    with pytest.raises(BadCheckpoint, match="no chat_template"):
        make(tmp_path / "base", "")
    with pytest.raises(BadCheckpoint, match="vocabulary ends at 99"):
        make(tmp_path / "small", T46, vocab=100)


TRIP = PromptRequest(
    (
        USER,
        Message(
            "assistant",
            "I look.",
            "Hm.",
            (ToolCall("call_1", "get_weather", '{"city": "北京", "days": 2}'), ToolCall("call_2", "now", "{}")),
        ),
        Message("tool", "3°C", tool_call_id="call_1"),
    ),
    (WEATHER, NOW),
)
TRIPS = {
    "0414": '<|assistant|>\nI look.<|assistant|>get_weather\n{"city": "北京", "days": 2}<|assistant|>now\n{}'
    "<|observation|>\n3°C<|assistant|>",
    "4.6": "<|assistant|>\n<think>Hm.</think>\nI look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n"
    "<arg_value>北京</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>now\n"
    "</tool_call><|observation|>\n<tool_response>\n3°C\n</tool_response><|assistant|>",
    "4.7": "<|assistant|>\n<think>Hm.</think>\nI look.<tool_call>get_weather<arg_key>city</arg_key>"
    "<arg_value>北京</arg_value><arg_key>days</arg_key><arg_value>2</arg_value></tool_call><tool_call>now</tool_call>"
    "<|observation|>\n<tool_response>\n3°C\n</tool_response><|assistant|><think>",
}


@pytest.mark.parametrize("name", TRIPS)
def test_a_tool_round_trip_is_rendered(formats: dict[str, ChatFormat], name: str) -> None:
    tools, _, rest = shown(formats[name], TRIP).partition("<|user|>\n天气?")
    assert rest == TRIPS[name]
    assert '"city"' in tools
    assert "now" in tools
    assert "<|system|>" not in shown(formats[name], PromptRequest(TRIP.messages, TRIP.tools, ToolChoice("none")))


def test_thinking_is_asked_for_by_the_templates_switch(formats: dict[str, ChatFormat]) -> None:
    def end(name: str, thinking: bool | None) -> str:
        return shown(formats[name], PromptRequest((USER,), thinking=thinking)).partition("天气?")[2]

    assert [end("4.6", thinking) for thinking in (None, True)] == ["<|assistant|>"] * 2
    assert end("4.6", False) == "/nothink<|assistant|>\n<think></think>"
    assert [end("4.7", thinking) for thinking in (None, True)] == ["<|assistant|><think>"] * 2
    assert end("4.7", False) == "<|assistant|></think>"


PAIR = "<arg_key>city</arg_key>{0}<arg_value>北京</arg_value>{0}<arg_key>days</arg_key>{0}<arg_value>2</arg_value>{0}"
ANSWERS: list[tuple[str, bool | None, str]] = [
    ("0414", None, '\nSo 😀{turn}get_weather\n{{"city": "北京", "days": 2}}'),
    ("z1", None, '\nHm.\n</think>\n\nSo 😀{turn}get_weather\n{{"city": "北京", "days": 2}}'),
    ("4.6", None, "\n<think>Hm.</think>\nSo 😀\n<tool_call>get_weather\n" + PAIR.format("\n") + "</tool_call>"),
    ("4.6", False, "\nSo 😀\n<tool_call>get_weather\n" + PAIR.format("\n") + "</tool_call>"),
    ("4.7", None, "Hm.</think>So 😀<tool_call>get_weather" + PAIR.format("") + "</tool_call>"),
    ("4.7", False, "So 😀<tool_call>get_weather" + PAIR.format("") + "</tool_call>"),
]


@pytest.mark.parametrize(("name", "thinking", "answer"), ANSWERS)
def test_answers_are_read(formats: dict[str, ChatFormat], name: str, thinking: bool | None, answer: str) -> None:
    text = answer.format(turn="<|assistant|>")
    told = read(formats[name], PromptRequest((USER,), (WEATHER,), thinking=thinking), text)
    thoughts = [ReasoningPart("Hm.")] if "Hm." in answer else []
    assert told == [*thoughts, TextPart("So 😀"), ToolCallPart("get_weather", '{"city": "北京", "days": 2}')]


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("0414", ["get_weather\n", "now\n"]),
        ("z1", ["</think>\nget_weather\n", "</think>\nnow\n"]),
        ("4.6", ["\n<tool_call>get_weather\n", "\n<tool_call>now\n"]),
        ("4.7", ["<tool_call>get_weather<arg_key>", "<tool_call>now<arg_key>", "<tool_call>now</tool_call>"]),
    ],
)
def test_a_call_that_has_to_come_is_begun(formats: dict[str, ChatFormat], name: str, prefixes: list[str]) -> None:
    chat = formats[name]
    required = chat.prompt(PromptRequest((USER,), (WEATHER, NOW), ToolChoice("required")))
    assert [chat.decode(prefix) for prefix in required.required_prefixes] == prefixes
    named = chat.prompt(PromptRequest((USER,), (WEATHER, NOW), ToolChoice("required", "now"), thinking=True))
    assert [chat.decode(prefix) for prefix in named.required_prefixes] == prefixes[1:]
    assert chat.prompt(PromptRequest((USER,), (WEATHER, NOW))).required_prefixes == ()
    tag = chat.encode("<tool_call>")
    assert all(tuple(opening[: len(tag)]) != tag for opening in required.required_prefixes), (
        "the tag has to be one token"
    )


def hostile(mark: str) -> PromptRequest:
    schema = {"type": "object", "properties": {mark: {"description": mark, "enum": [mark]}}, mark: [{mark: mark}]}
    tool = Tool("get_weather", json.dumps({"name": "get_weather", "description": mark, "parameters": schema}))
    call = ToolCall(mark, "get_weather", json.dumps({"city": mark, mark: {mark: [mark]}}))
    messages = (
        Message("system", f"be {mark}"),
        Message("user", mark),
        Message("assistant", f"so {mark}", f"Hm {mark}", (call,)),
        Message("tool", mark, tool_call_id=mark),
        Message("assistant", mark),
        Message("user", f"x{mark}"),
    )
    return PromptRequest(messages, (tool,))


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_people_write_never_becomes_a_control_token(formats: dict[str, ChatFormat], name: str) -> None:
    chat = formats[name]

    def structure(mark: str) -> list[int]:
        return [token for token in chat.prompt(hostile(mark)).ids if token >= len(BYTES)]

    plain = structure("plain")
    assert len(plain) > 8
    for mark in (
        *CONTROL_TOKENS,
        *TAGS,
        "<tool_response>",
        "<|user|>\n<|assistant|>",
        "<|\U000f0010user|>",
        "\U000f0010",
    ):
        assert structure(mark) == plain, mark


@pytest.mark.parametrize("name", TEMPLATES)
def test_people_s_text_reaches_the_model_as_it_is(formats: dict[str, ChatFormat], name: str) -> None:
    for text in ("a <|user|> b</think>c", "<think>x</think>y", "people", "/nothink", "😀\n\n<tool_call>"):
        assert f"<|user|>\n{text}" in shown(formats[name], PromptRequest((Message("user", text), Message("user", "z"))))


def test_a_template_that_refuses_is_a_clear_400(tmp_path: Path) -> None:
    chat = make(tmp_path / "strict", "{{ raise_exception('only one turn') }}<|user|>")
    with pytest.raises(RequestError, match="refuses this conversation: only one turn") as caught:
        chat.prompt(PromptRequest((USER,)))
    assert caught.value.reply.code == "invalid_conversation"


@pytest.mark.parametrize(
    "wrong",
    [
        "{{ messages[0].content + 1 }}",
        "{{ 1 // 0 }}",
        "{% for n in range(10**9) %}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ messages | tojson",
    ],
)
def test_whatever_a_template_raises_is_a_clear_400(tmp_path: Path, wrong: str) -> None:
    chat = make(tmp_path / "wrong", wrong + "<|user|>")
    with pytest.raises(RequestError, match="refuses this conversation: "):
        chat.prompt(PromptRequest((USER,)))


def test_a_template_cannot_leave_its_sandbox(tmp_path: Path) -> None:
    escape: Any = "{{ messages.__class__.__mro__ }}<|user|>"
    chat = make(tmp_path / "escape", escape)
    with pytest.raises(RequestError, match="refuses this conversation"):
        chat.prompt(PromptRequest((USER,)))


CHAT_HF = """[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>
# 可用工具{% set tools = item['tools'] %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{%- if item['content'] %}<|{{ item['role'] }}|>{{ item['metadata'] }}
{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def test_tools_that_a_template_takes_with_a_message_are_a_system_turn(tmp_path: Path) -> None:
    """As GLM-4-9B-chat's own template does: it has no place for the request's tools."""
    chat = make(tmp_path / "chat", CHAT_HF, ())
    assert type(chat) is Glm4Format
    text = shown(chat, PromptRequest((Message("system", "Be brief."), USER), (NOW,)))
    assert text.startswith("[gMASK]<sop><|system|>\n你是一个名为 GLM-4 的人工智能助手。")
    assert '## now\n\n{\n    "name": "now"\n}\n' in text
    assert text.endswith("<|system|>\nBe brief.<|user|>\n天气?<|assistant|>")
