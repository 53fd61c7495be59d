"""Encodes text so that control tokens occur only where a template wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

GUARDS = ("\U000f0010", "\U000f0011")
"""Private-use characters that surround what looks like a control token in users' text while a template is rendered.
They never reach the model."""
BREAK = "".join(GUARDS)
"""Marks the end of an answer that is to be continued, while a template is rendered; users' text can't contain it."""


class SafeEncoder:
    """Encodes rendered templates.

    transformers' own `sanitize_control_tokens` guards values but not the keys of JSON objects, and it splits users'
    text at each guarded token, which gives other ids than the published code does.
    """

    def __init__(self, tokenizer: Any, control: Mapping[str, int]) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`, `control` the ids of its added tokens except white space."""
        self._control = dict(control)
        self._plain = without_added_tokens(tokenizer, self._control)
        # The longest first, since one may begin with another.
        tokens = "|".join(re.escape(token) for token in sorted(control, key=len, reverse=True)) or "(?!)"
        self._token = re.compile(tokens)
        start, end = GUARDS
        self._part = re.compile(f"{start}(?:{tokens}){end}|({tokens})")

    def mark(self, value: Any) -> Any:
        """Guards users' strings, lists and objects, keys too, so that `encode` treats them as text."""
        if isinstance(value, str):
            return self._token.sub(lambda match: match.group().join(GUARDS), _without_guards(value))
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        return value

    def encode(self, rendered: str) -> tuple[int, ...]:
        """The ids of a text that a template made from guarded values."""
        return tuple(self._ids(rendered))

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """The ids of users' text."""
        ids: list[int] = self._plain.encode(_without_guards(text), add_special_tokens=False).ids
        return tuple(ids)

    def _ids(self, rendered: str) -> Iterator[int]:
        position = 0
        for match in self._part.finditer(rendered):
            if token := match.group(1):
                yield from self.encode_plain(rendered[position : match.start()])
                yield self._control[token]
                position = match.end()
        yield from self.encode_plain(rendered[position:])


def _without_guards(text: str) -> str:
    for guard in GUARDS:
        text = text.replace(guard, "")
    return text


def without_added_tokens(tokenizer: Any, control: Mapping[str, int]) -> Any:
    """A copy of a `tokenizers.Tokenizer` without control tokens, truncation and padding."""
    from tokenizers import Tokenizer

    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] not in control]
    fields |= {"truncation": None, "padding": None, "post_processor": None}
    return Tokenizer.from_str(json.dumps(fields))
