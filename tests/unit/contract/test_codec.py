from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.contract.codec import ContractError, dump_line, from_json, to_json, write_atomically
from app.contract.plan import Text
from app.contract.status import EngineEvent, Loading, Proof, Ready
from app.contract.wire import ChatRequest, Message, SamplingParams


def test_a_request_survives_the_wire() -> None:
    request = ChatRequest(
        "id",
        (Message("user", "你好 \U0001f600\n"),),
        SamplingParams(temperature=0.5, top_p=1.0, top_k=7),
        12,
        ("a", "b"),
    )
    line = dump_line(request)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert from_json(ChatRequest, json.loads(line)) == request


@pytest.mark.parametrize("event", [Loading(1, 2), Ready(Proof(1, 2, 3, 3.0, 4.0), 5)])
def test_an_event_finds_its_class_by_type(event: EngineEvent) -> None:
    assert from_json(EngineEvent, json.loads(dump_line(event))) == event  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sample:
    name: str
    count: int = 1
    ratio: float = 0.5
    text: Text | None = None
    items: tuple[int, ...] = ()
    table: dict[str, int] | None = None


def test_defaults_and_unknown_keys() -> None:
    assert from_json(Sample, {"name": "a", "newer": True}) == Sample("a")
    assert from_json(Sample, {"name": "a", "ratio": 1}).ratio == 1.0


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({}, "value.name is missing"),
        ([], "value should be an object"),
        ({"name": 1}, "value.name should be str"),
        ({"name": "a", "count": True}, "value.count should be int"),
        ({"name": "a", "count": 1.5}, "value.count should be int"),
        ({"name": "a", "items": [1, "x"]}, r"value.items\[1\] should be int"),
        ({"name": "a", "text": {"en": "x"}}, "value.text.zh is missing"),
        ({"name": "a", "table": {"k": "v"}}, "value.table.k should be int"),
    ],
)
def test_a_wrong_value_names_the_place(value: object, where: str) -> None:
    with pytest.raises(ContractError, match=where):
        from_json(Sample, value)


def test_not_a_number_never_leaves() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_line(Sample("a", ratio=float("nan")))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_atomically(file, Sample("a"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_atomically(file, Sample("b", ratio=float("inf")))
    assert from_json(Sample, json.loads(file.read_text())) == Sample("a")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert to_json(Sample("a"))["name"] == "a"
