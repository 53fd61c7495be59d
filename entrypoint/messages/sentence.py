"""From a reason to its sentence: each module of this package registers those of one area."""

from __future__ import annotations

import functools
from typing import NamedTuple

from app.contract.plan import Text
from entrypoint.reasons.reason import Reason


class Sentence(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


@functools.singledispatch
def sentence(reason: Reason) -> Sentence:
    """The sentence of a reason. A module registers one with `@sentence.register`, by the type of its argument.

    Raises:
        LookupError: no module has registered one for this type.
    """
    raise LookupError(f"no sentence for {type(reason).__name__}")


def text(reason: Reason) -> Text:
    """The reason as status.json, the API and the page have it: sentence, code and values."""
    said = sentence(reason)
    return Text(en=said.en, zh=said.zh, code=reason.code, values=reason.values())
