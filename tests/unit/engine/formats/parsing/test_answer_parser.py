"""What answers say: thoughts, text and calls, in each format, in whatever pieces they come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.formats.parsing.parts import AnswerPart, ReasoningPart, TextPart, ToolCallPart
from tests.unit.answers import PARSERS, TURN, call, cut, read

LINES = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call>"
BARE = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>北京</arg_value></tool_call>"
BLOCK = "get_weather\n ```python\ntool_call(city='北京')\n```"

GOLDEN: list[tuple[str, str, list[AnswerPart]]] = [
    # ChatGLM3
    ("chatglm3", "\n Hello!\n😀 ", [TextPart("Hello!\n😀")]),
    ("chatglm3", BLOCK, [call()]),
    ("chatglm3", f"\n Let me look.{TURN}{BLOCK}", [TextPart("Let me look."), call()]),
    ("chatglm3", f"{BLOCK}{TURN}now\n ```python\ntool_call()\n```", [call(), call("now", "{}")]),
    ("chatglm3", "\n One.\n\n" + TURN + "\n Two.", [TextPart("One.\nTwo.")]),
    ("chatglm3", "\n I know [[训练时间]] well", [TextPart("I know 2023年 well")]),
    ("chatglm3", "get_weather\n ```python\ntool_call(city=", [TextPart("get_weather\n ```python\ntool_call(city=")]),
    ("chatglm3", "get_weather\n tool_call(city=open('x'))", [TextPart("get_weather\n tool_call(city=open('x'))")]),
    ("chatglm3", "get_weather is a tool\nfor it", [TextPart("get_weather is a tool\nfor it")]),
    ("chatglm3", "rm_rf\n ```python\ntool_call()\n```", [TextPart("rm_rf\n ```python\ntool_call()\n```")]),
    # GLM-4-9B-chat and 0414
    ("glm4", "\nHello!\n\nBye", [TextPart("Hello!\n\nBye")]),
    ("glm4", 'get_weather\n{"city": "北京"}', [call()]),
    ("glm4", f'\nI will look.{TURN}get_weather\n{{"city": "北京"}}', [TextPart("I will look."), call()]),
    ("glm4", f'now\n{{}}{TURN}get_weather\n{{"city": "北京"}}', [call("now", "{}"), call()]),
    ("glm4", 'get_weather\n{"city": "北', [TextPart('get_weather\n{"city": "北')]),
    ("glm4", 'get_weather\n["北京"]', [TextPart('get_weather\n["北京"]')]),
    ("glm4", 'stranger\n{"city": "北京"}', [TextPart('stranger\n{"city": "北京"}')]),
    # Z1, whose prompt opens the thoughts
    ("z1", "Hm.\n</think>\n\nHello", [ReasoningPart("Hm."), TextPart("Hello")]),
    ("z1", 'Hm.</think>\n\nget_weather\n{"city": "北京"}', [ReasoningPart("Hm."), call()]),
    ("z1", 'Hm. get_weather\n{"city"', [ReasoningPart('Hm. get_weather\n{"city"')]),
    # 4.5 and 4.6
    ("glm45", "\n<think>Hm.\nSo.</think>\nHello\n", [ReasoningPart("Hm.\nSo."), TextPart("Hello")]),
    ("glm45", "\n<think></think>\nHello", [TextPart("Hello")]),
    ("glm45", "Hello", [TextPart("Hello")]),
    ("glm45", "</think>Hello", [TextPart("Hello")]),
    ("glm45", f"<think>{LINES}</think>No.", [ReasoningPart(LINES), TextPart("No.")]),
    ("glm45", f"I will look.\n{LINES}", [TextPart("I will look."), call()]),
    ("glm45", f"{LINES}\n{LINES}\n", [call(), call()]),
    ("glm45", f"{LINES}\nDone.", [call(), TextPart("Done.")]),
    ("glm45", "a <tool_call>get_weather\n<arg_key>city", [TextPart("a <tool_call>get_weather\n<arg_key>city")]),
    ("glm45", "<tool_call>stranger\n</tool_call>", [TextPart("<tool_call>stranger\n</tool_call>")]),
    ("glm45", "<tool_call>now\nplease</tool_call>x", [TextPart("<tool_call>now\nplease</tool_call>x")]),
    ("glm45", "1 < 2 <think> and <tool", [TextPart("1 < 2 <think> and <tool")]),
    # 4.7 and Flash, whose prompt opens the thoughts, and which write no line ends
    ("glm47", f"Hm.</think>{BARE}", [ReasoningPart("Hm."), call()]),
    ("glm47", f"<think>Hm.</think>I look.{BARE}{BARE}", [ReasoningPart("Hm."), TextPart("I look."), call(), call()]),
    ("glm47", "</think><tool_call>now</tool_call>", [call("now", "{}")]),
    ("glm47", "Hm.", [ReasoningPart("Hm.")]),
    ("glm47", "Hm.</thi", [ReasoningPart("Hm.</thi")]),
    ("glm47", "</think><tool_call>get_weather<arg_key>city</arg_key>北京</arg_value></tool_call>", [call()]),
    (
        "glm47",
        "</think><tool_call>get_weather<arg_key>city</arg_key><arg_value>a</tool_call>b</arg_value></tool_call>",
        [call(arguments='{"city": "a</tool_call>b"}')],
    ),
    ("no tools", f"<think>a</think>{LINES}", [ReasoningPart("a"), TextPart(LINES)]),
]


@pytest.mark.parametrize(("kind", "text", "says"), GOLDEN)
def test_golden(kind: str, text: str, says: list[AnswerPart]) -> None:
    assert read(PARSERS[kind](), [text]) == says
    assert read(PARSERS[kind](), list(text)) == says


def parts_of(kind: str) -> st.SearchStrategy[str]:
    own = [text for golden, text, _ in GOLDEN if golden == kind]
    marks = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>"]
    words = ["</arg_value>", "get_weather", "now", "\n", " ", "{}", "北京😀", "[[训练时间]]", "[[训", "<", "x", TURN]
    return st.lists(st.sampled_from(own + marks + words), max_size=6).map("".join)


@pytest.mark.parametrize("kind", PARSERS)
@given(data=st.data())
def test_the_pieces_borders_do_not_matter(kind: str, data: st.DataObject) -> None:
    text = data.draw(parts_of(kind))
    places = data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12))
    whole = read(PARSERS[kind](), [text])
    assert read(PARSERS[kind](), cut(text, places)) == whole
    assert read(PARSERS[kind](), list(text)) == whole


@pytest.mark.parametrize("kind", ["glm45", "glm47"])
@given(data=st.data())
def test_nothing_is_lost_but_space_and_marks(kind: str, data: st.DataObject) -> None:
    """Without a tool that is known, all text but the thoughts' marks comes out again, in order."""
    text = data.draw(parts_of(kind)).replace("get_weather", "stranger").replace("now", "nobody")
    told = "".join(piece.text for piece in read(PARSERS[kind](), [text]) if not isinstance(piece, ToolCallPart))

    def bare(words: str) -> str:
        return "".join(words.replace(TURN, "").replace("<think>", "").replace("</think>", "").split())

    assert bare(told) == bare(text)


def test_text_before_a_call_does_not_wait_for_it() -> None:
    parser: Any = PARSERS["glm45"]()
    assert list(parser.feed("I will look. ")) == [TextPart("I will look.")]
    assert parser.feed("\n<tool_") == ()
    assert parser.feed(LINES.removeprefix("<tool_")) == (call(),)
    assert parser.feed("\n\n") == parser.end() == ()


def test_thoughts_come_as_they_are_thought() -> None:
    parser: Any = PARSERS["glm47"]()
    told = [parser.feed(part) for part in ("One ", "two </", "b>", "\n</think", ">", "\nthree")]
    assert told == [
        (ReasoningPart("One"),),
        (ReasoningPart(" two"),),
        (ReasoningPart(" </b>"),),
        (),
        (),
        (TextPart("three"),),
    ]


def test_a_long_call_is_read_in_linear_time() -> None:
    value = "</tool_call> " * 20_000
    text = f"<tool_call>get_weather<arg_key>city</arg_key><arg_value>{value}</arg_value></tool_call>"
    parser = PARSERS["glm45"]()
    told = read(parser, [text[start : start + 64] for start in range(0, len(text), 64)])
    assert [type(piece) for piece in told] == [ToolCallPart]
