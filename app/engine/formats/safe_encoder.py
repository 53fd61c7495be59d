"""Text to ids in which control tokens stand only where a template wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MARKS = ("\U000f0010", "\U000f0011")
"""Private-use characters that are put around what looks like a control token in people's text while a template is
rendered. They never reach the model."""
BREAK = "".join(MARKS)
"""Stands for the end of an answer that is to go on, while a template is rendered; no text of people's can hold it."""


class SafeEncoder:
    """Encodes rendered templates.

    transformers' own `sanitize_control_tokens` guards values but not the keys of JSON objects, and it breaks people's
    text into pieces at each guarded token, which gives other ids than the published code does.
    """

    def __init__(self, tokenizer: Any, control: Mapping[str, int]) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`, `control` the ids of its added tokens, white space apart."""
        self._control = dict(control)
        self._plain = without_added_tokens(tokenizer, self._control)
        # The longest first: one may begin with another.
        tokens = "|".join(re.escape(token) for token in sorted(control, key=len, reverse=True)) or "(?!)"
        self._token = re.compile(tokens)
        start, end = MARKS
        self._part = re.compile(f"{start}(?:{tokens}){end}|({tokens})")

    def mark(self, value: Any) -> Any:
        """Strings, lists and objects of people's, keys too, so that `encode` takes them for text."""
        if isinstance(value, str):
            return self._token.sub(lambda match: match.group().join(MARKS), _without_marks(value))
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        return value

    def encode(self, rendered: str) -> tuple[int, ...]:
        """The ids of a text that a template made from marked values."""
        return tuple(self._ids(rendered))

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """The ids of people's text."""
        ids: list[int] = self._plain.encode(_without_marks(text), add_special_tokens=False).ids
        return tuple(ids)

    def _ids(self, rendered: str) -> Iterator[int]:
        place = 0
        for match in self._part.finditer(rendered):
            if token := match.group(1):
                yield from self.encode_plain(rendered[place : match.start()])
                yield self._control[token]
                place = match.end()
        yield from self.encode_plain(rendered[place:])


def _without_marks(text: str) -> str:
    for mark in MARKS:
        text = text.replace(mark, "")
    return text


def without_added_tokens(tokenizer: Any, control: Mapping[str, int]) -> Any:
    """A copy of a `tokenizers.Tokenizer` that knows no control tokens, and neither cuts nor pads."""
    from tokenizers import Tokenizer

    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] not in control]
    fields |= {"truncation": None, "padding": None, "post_processor": None}
    return Tokenizer.from_str(json.dumps(fields))
