"""The bytes of single ids of transformers' fast tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""SentencePiece's spelling of a byte that is in no piece."""


class TokenBytes:
    """Byte-level vocabularies spell each byte by a letter; others write text, with `▁` for a space."""

    def __init__(self, tokenizer: Any, added: Mapping[str, int]) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`, `added` the ids of its added tokens, which are plain text."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        self._tokenizer = tokenizer
        self._added = frozenset(added.values())
        letters: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
        self._bytes = {letter: byte for byte, letter in letters.items()}
        self._by_letters = '"ByteLevel"' in json.dumps(json.loads(tokenizer.to_str())["decoder"])

    def of(self, token: int) -> bytes:
        """Empty if the tokenizer has no such id."""
        piece: str | None = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if token in self._added:
            return piece.encode()
        if self._by_letters:
            return b"".join(_letter_bytes(letter, self._bytes) for letter in piece)
        if byte := BYTE.fullmatch(piece):
            return bytes.fromhex(byte.group(1))
        return piece.replace("▁", " ").encode()


def _letter_bytes(letter: str, letters: Mapping[str, int]) -> bytes:
    return bytes([letters[letter]]) if letter in letters else letter.encode()
