"""GLM-4-9B-chat as first published: its tokenizer is a list of tokens by rank, read by code that comes with it.

Here the list is read without that code, into the same byte-level BPE: the rank of a token is its id and the priority
of its merge.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from app.engine.errors import BadCheckpoint
from app.engine.formats.template import check_size

TOKENIZER_FILE = "tokenizer.model"
CONTROL_TOKENS = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
)
"""Their ids follow the ranks, in this order."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The published code's pattern: merges never cross its borders."""


def read_rank_tokenizer(folder: Path, vocab: int) -> Any:
    """The tokenizer of the checkpoint in `folder`, as transformers' fast kind; the model has ids below `vocab`.

    Raises:
        BadCheckpoint: a file is missing or damaged, there is no chat template, or the model has fewer ids.
    """
    from transformers import PreTrainedTokenizerFast

    ranks = _read_ranks(folder / TOKENIZER_FILE)
    template, names = _read_config(folder / "tokenizer_config.json")
    for number, token in enumerate(CONTROL_TOKENS, start=len(ranks)):
        name = names.get(str(number), token)
        if name != token:
            raise BadCheckpoint(f"tokenizer_config.json calls id {number} {name!r}; GLM-4-9B-chat's is {token!r}")
    check_size(len(ranks) + len(CONTROL_TOKENS) - 1, vocab)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_build(ranks),
        chat_template=template,
        eos_token=CONTROL_TOKENS[0],
        pad_token=CONTROL_TOKENS[0],
        clean_up_tokenization_spaces=False,
    )


def _read_config(path: Path) -> tuple[str, dict[str, object]]:
    """The chat template, and the names of control tokens by their ids as text."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        template = fields["chat_template"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadCheckpoint(f"{path.name} has no chat_template that can be read: {error}") from error
    if not (isinstance(template, str) and template):
        raise BadCheckpoint(f"{path.name} has no chat_template that can be read: it is not text")
    try:
        tokens = fields.get("added_tokens_decoder") or {}
        return template, {number: token["content"] for number, token in tokens.items()}
    except (AttributeError, LookupError, TypeError) as error:
        raise BadCheckpoint(f"{path.name}: added_tokens_decoder is not a table of tokens: {error}") from error


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    try:
        for line in path.read_bytes().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (OSError, ValueError, binascii.Error) as error:
        raise BadCheckpoint(f"{TOKENIZER_FILE} cannot be read as GLM-4-9B-chat's list of ranks: {error}") from error
    if len(ranks) < 256 or sorted(ranks.values()) != list(range(len(ranks))):
        raise BadCheckpoint(f"{TOKENIZER_FILE} is not GLM-4-9B-chat's list of ranks: they do not count up from 0")
    return ranks


def _build(ranks: dict[bytes, int]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
    spellings = {token: "".join(letters[byte] for byte in token) for token in ranks}
    vocab = {spellings[token]: rank for token, rank in ranks.items()}
    # Whole tokens are found first (ignore_merges); for all others, every pair that makes a token is a merge.
    merges = [
        (spellings[left], spellings[right])
        for token in sorted(ranks, key=ranks.__getitem__)
        for left, right in sorted(_pairs(token, ranks), key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    ]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return tokenizer


def _pairs(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    cuts = ((token[:index], token[index:]) for index in range(1, len(token)))
    return [(left, right) for left, right in cuts if left in ranks and right in ranks]
