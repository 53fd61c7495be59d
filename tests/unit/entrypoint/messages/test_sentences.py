"""Every reason there is has a sentence in both languages and a code of its own."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import entrypoint.messages as messages
import entrypoint.reasons as reasons
from app.contract.codec import dump_line
from app.contract.plan import Text
from entrypoint.messages.sentence import sentence, text
from entrypoint.reasons.reason import Reason
from entrypoint.reasons.setting import SetByYou

for module in (*pkgutil.walk_packages(reasons.__path__, "entrypoint.reasons."),):
    importlib.import_module(module.name)

CHINESE = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]")
SAMPLES: dict[Any, Any] = {
    str: "name",
    int: 3 << 30,
    float: 2.5,
    bool: True,
    Path: Path("/folder"),
    Text: Text("The cause.", "原因。", "cause"),
    Reason: SetByYou(),
    Any: "value",
}


def concrete(base: type[Reason] = Reason) -> Iterator[type[Reason]]:
    """The reasons in entrypoint.reasons that have no subclass."""
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from concrete(kind)
        elif kind.__module__.startswith("entrypoint.reasons."):
            yield kind


KINDS = sorted(concrete(), key=lambda kind: kind.__name__)


def samples(hint: Any) -> list[Any]:
    """Values of a type; for an optional one with and without."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return [None]
    if hint in SAMPLES:
        return [SAMPLES[hint], False] if hint is bool else [SAMPLES[hint]]
    if origin in (typing.Union, types.UnionType):
        return [value for kind in args for value in samples(kind)]
    if origin is typing.Literal:
        return list(args)
    if origin in (tuple, list):
        return [origin(samples(args[0])[:1] * 2), origin()]
    if origin is not None and issubclass(origin, typing.Mapping):
        return [{samples(args[0])[0]: samples(args[1])[0]}]
    if isinstance(hint, type) and issubclass(hint, Reason) and hint.__subclasses__():
        return instances(next(concrete(hint)))[:1]
    if dataclasses.is_dataclass(hint):
        return instances(typing.cast(type, hint))
    raise TypeError(f"no sample of {hint!r}: add one to SAMPLES")


def instances(kind: type) -> list[Any]:
    """One with the first sample of every field, and one for each further sample of a field."""
    hints = typing.get_type_hints(kind)
    options = {field.name: samples(hints[field.name]) for field in dataclasses.fields(kind) if field.init}
    first = {name: values[0] for name, values in options.items()}
    others = [first | {name: value} for name, values in options.items() for value in values[1:]]
    return [kind(**arguments) for arguments in (first, *others)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_reason_has_a_sentence_in_both_languages(kind: type[Reason]) -> None:
    for reason in instances(kind):
        words = sentence(reason)
        assert words.en.strip() and not CHINESE.search(words.en), words.en
        assert words.zh.strip() and CHINESE.search(words.zh), words.zh
        assert "None" not in words.en + words.zh, "an absent value is left out"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_reason_is_json(kind: type[Reason]) -> None:
    for reason in instances(kind):
        written = json.loads(dump_line(text(reason)))
        assert written["code"] == reason.code
        assert written["values"].keys() == {field.name for field in dataclasses.fields(kind)}


def test_every_code_is_one_reasons() -> None:
    assert KINDS
    assert [code for code, count in Counter(kind.__name__ for kind in KINDS).items() if count > 1] == []
    codes = [instances(kind)[0].code for kind in KINDS]
    assert len(codes) == len(set(codes))


def test_the_package_registers_every_module_of_sentences() -> None:
    modules = {module.name for module in pkgutil.iter_modules(messages.__path__)}
    assert modules <= vars(messages).keys()


def test_a_reason_without_a_sentence_is_an_error() -> None:
    @dataclasses.dataclass(frozen=True)
    class Unsaid(Reason):
        """Has none."""

    with pytest.raises(LookupError, match="no sentence for Unsaid"):
        sentence(Unsaid())
